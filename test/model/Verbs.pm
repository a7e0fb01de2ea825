# Everything a session can do: for each verb how a random one is made, whether it
# can be done now, its SQL, and what the model makes of the answer.
#
# An operation is a hash that stands for itself: it names messages by their tags
# and deliveries by the operation they came from, so that it keeps its meaning
# when others are left out.  What it refers to and cannot be found makes it
# impossible (can), and it is passed over.
package Verbs;

use strict;
use warnings;

use List::Util qw(first sum0);
use Model;

our %VERB;

# What an operation's code gets: the model, random numbers, deliveries so far.
#   { model, rnd, now, deliveries => { "op.position" => {...} }, order => [ names ], busy => { session => op } }

sub pick { my ($c, @from) = @_; return $from[ int($c->{rnd}->() * @from) ] }
sub chance { my ($c, $p) = @_; return $c->{rnd}->() < $p }
sub span { my ($c, $lo, $hi) = @_; return $lo + int($c->{rnd}->() * ($hi - $lo + 1)) }

sub quote
{
	my ($t) = @_;
	return 'NULL' unless defined $t;
	$t =~ s/'/''/g;
	return "'$t'";
}
sub secs { return defined $_[0] ? "'$_[0] seconds'" : 'NULL' }

sub json
{
	my ($h) = @_;
	return undef unless $h;
	return '{' . join(', ', map { qq("$_": "$h->{$_}") } sort { length $a <=> length $b || $a cmp $b } keys %$h) . '}';
}

sub queue { my ($c, $name) = @_; return $c->{model}{q}{$name} }

sub tx_of { my ($c, $op) = @_; return $c->{model}->tx($op->{s}) }

# A queue to work with; now and then one for dead letters.
sub some_queue
{
	my ($c) = @_;
	my @names = sort keys %{ $c->{model}{q} };
	my @main = grep { !/_dead$/ } @names;
	return pick($c, chance($c, 0.12) ? @names : @main);
}

# Whether this queue can be used by this transaction without waiting.
sub usable
{
	my ($c, $op, @names) = @_;
	my $tx = tx_of($c, $op);
	foreach my $name (@names)
	{
		my $q = queue($c, $name) or return 0;
		return 0 if $tx && $q->{ddl} && $q->{ddl} == $tx;
		# a transaction that was open by then may have the options of before
		return 0 if $tx && ($q->{altered} // 0) > $tx->{n};
	}
	return 1;
}

# Statements of plain SQL see what their snapshot sees; the model does not keep those.
sub plain_ok { my ($c, $op) = @_; my $tx = tx_of($c, $op); return !$tx || $tx->{iso} eq 'rc' }

sub wrong_error
{
	my ($res, $want) = @_;
	my $got = $res->{err} // 'none';
	return $got eq ($want // 'none') ? undef : 'expected ' . ($want ? "error $want" : 'no error') . ", got $got: " . ($res->{text} // '');
}

sub touch
{
	my ($c, $tx, @names) = @_;
	foreach my $name (@names)
	{
		$tx->{touched}{$name} = 1;
		my $dead = queue($c, $name) && queue($c, $name)->{opt}{dead_letter};
		$tx->{touched}{$dead} = 1 if $dead;
	}
}

sub touched_by_others
{
	my ($c, $op, $name) = @_;
	my $own = tx_of($c, $op);
	return grep { (!$own || $_ != $own) && $_->{touched}{$name} } $c->{model}->open_tx;
}

sub held_by_other { my ($m, $tx) = @_; return $m->{lock} && (!$tx || $m->{lock} != $tx) || $m->{del} && (!$tx || $m->{del} != $tx) }

# The verbs themselves.
require Verbs::Produce;
require Verbs::Consume;
require Verbs::Settle;
require Verbs::Rows;
require Verbs::Queues;
require Verbs::Sessions;

# A random operation number n; undef if none was found.
sub next_op
{
	my ($c, $n, $sessions) = @_;
	foreach my $try (1 .. 60)
	{
		my $s = span($c, 1, $sessions);
		my %op = (n => $n, s => $s);
		my $tx = $c->{model}->tx($s);
		if ($c->{busy}{$s})
		{
			next unless $c->{busy}{$s}{k} eq 'dequeue_wait' && chance($c, 0.05);
			return { %op, k => 'cancel' };
		}
		my $kind = $tx ? 'tx' : 'idle';
		my @verbs = sort keys %VERB;
		@verbs = ('rollback', 'rollback_to', 'commit') if $tx && $tx->{failed};
		my $at = $c->{rnd}->() * sum0(map { $VERB{$_}{$kind} } @verbs);
		my $k = first { ($at -= $VERB{$_}{$kind}) < 0 } @verbs;
		next unless $k;
		$op{k} = $k;
		$op{rest} = chance($c, 0.6);
		next unless $VERB{$k}{make}->($c, \%op);
		next unless allowed($c, \%op);
		return \%op;
	}
	return;
}

# Whether it can be done now.
sub allowed
{
	my ($c, $op) = @_;
	my $tx = tx_of($c, $op);
	return 1 if $op->{k} eq 'compare';
	return 0 if $c->{busy}{ $op->{s} } && $op->{k} ne 'cancel';
	return 0 if $tx && $tx->{failed} && $op->{k} !~ /^(rollback|rollback_to|commit|session_end|time_passes)$/;
	return 0 if $tx ? !$VERB{ $op->{k} }{tx} && $op->{k} !~ /^(time_passes|cancel)$/ : !$VERB{ $op->{k} }{idle} && $op->{k} !~ /^(cancel|create_queue)$/;
	return $VERB{ $op->{k} }{can}->($c, $op);
}

1;

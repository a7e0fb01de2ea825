# What becomes of deliveries.
package Verbs;

use strict;
use warnings;

our (%VERB, $TAG, $DELIVERY);

# Deliveries of one queue, most of them current.
sub some_deliveries
{
	my ($c, $op, $n) = @_;
	my $tx = tx_of($c, $op);
	my @all = map { [ $_, $c->{deliveries}{$_} ] } @{ $c->{order} };
	@all = @all[ -200 .. -1 ] if @all > 200;
	my @current = grep { Model::current($_->[1]{m}, $_->[1]{receipt}, $tx // 0) && !held_by_other($_->[1]{m}, $tx) } @all;
	my @from = chance($c, 0.9) ? @current : @all;
	@from = @all unless @from;
	return unless @from;
	my $first = pick($c, @from);
	my @here = grep { $_->[1]{q} eq $first->[1]{q} && $_ != $first } @from;
	my @refs = $first->[0];
	push @refs, splice(@here, int($c->{rnd}->() * @here), 1)->[0] while @here && @refs < $n;
	push @refs, $refs[0] if $n > 1 && chance($c, 0.1);
	$op->{q} = $first->[1]{q};
	$op->{refs} = \@refs;
	return 1;
}

sub refs_of
{
	my ($c, $op) = @_;
	return map { $c->{deliveries}{$_} // () } @{ $op->{refs} // [] };
}

# None of their rows may be somebody else's, or we would wait.
sub can_settle
{
	my ($c, $op) = @_;
	my $tx = tx_of($c, $op);
	my @d = refs_of($c, $op);
	return 0 if @d != @{ $op->{refs} } || !usable($c, $op, $op->{q});
	return !grep { !$_->{m}{gone} && $_->{m}{lease} && ($_->{m}{del} || held_by_other($_->{m}, $tx)) } @d;
}

# The deliveries that are current, each once.
sub current_of
{
	my ($c, $op) = @_;
	my $tx = tx_of($c, $op);
	my @now = grep { Model::current($_->{m}, $_->{receipt}, $tx) } refs_of($c, $op);
	my %seen;
	return grep { !$seen{ $_->{m} }++ } @now;
}

sub array_sql { my ($type, @v) = @_; return "'{" . join(',', @v) . "}'::${type}[]" }

sub settle_sql
{
	my ($c, $op, $verb, @args) = @_;
	my @d = refs_of($c, $op);
	push @args, 'strict => true' if $op->{strict};
	my @target = $op->{batch}
	  ? (array_sql('bigint', map { $_->{id} } @d), array_sql('bigint', map { $_->{receipt} } @d))
	  : ($d[0]{id}, $d[0]{receipt});
	return "SELECT mq.$verb" . ($op->{batch} ? '_batch' : '') . '(' . join(', ', quote($op->{q}), @target, @args) . ')';
}

sub apply_settle
{
	my ($c, $op, $verb, $res, $t0, $t1) = @_;
	my $tx = tx_of($c, $op);
	my $q = queue($c, $op->{q});
	my @now = current_of($c, $op);
	my %asked = map { ("$_->{id}/$_->{receipt}" => 1) } refs_of($c, $op);

	touch($c, $tx, $op->{q});
	return wrong_error($res, $op->{strict} && @now < keys %asked ? '55000' : undef)
	  if $res->{err} || $op->{strict} && @now < keys %asked;
	my $got = $res->{rows}[0][0];
	return "$verb returned $got, not " . @now if $got != @now;
	foreach my $d (@now)
	{
		if ($verb eq 'extend')
		{
			my $l = $d->{m}{lease};
			@$l{qw(session dur)} = (0, $op->{for});
			$l->{deadline} = [ $t0 + $op->{for}, $t1 + $op->{for} ] if $l->{state} eq 'held';
		}
		else
		{
			$c->{model}->settle($tx, $q, $d->{m}, $verb, delay => $op->{delay}, reason => $op->{reason}, t0 => $t0, t1 => $t1);
		}
	}
	return;
}

my %weight = (ack => 9, nack => 6, reject => 3, release => 4, extend => 3);
foreach my $verb (keys %weight)
{
	foreach my $batch (0, 1)
	{
		my $w = $weight{$verb} / ($batch ? 2 : 1);
		$VERB{ $verb . ($batch ? '_batch' : '') } = {
			idle => $w, tx => $w,
			make => sub {
				my ($c, $op) = @_;
				$op->{batch} = $batch;
				$op->{strict} = 1 if chance($c, 0.1);
				$op->{delay} = pick($c, 0, 30, 600) if $verb eq 'nack' && chance($c, 0.4);
				$op->{reason} = 'because' if ($verb eq 'nack' || $verb eq 'reject') && chance($c, 0.6);
				$op->{for} = pick($c, 45, 600, 3600) if $verb eq 'extend';
				return some_deliveries($c, $op, $batch ? span($c, 1, 5) : 1);
			},
			can => \&can_settle,
			sql => sub {
				my ($c, $op) = @_;
				return settle_sql($c, $op, $verb,
					defined $op->{for} ? secs($op->{for}) : (),
					defined $op->{delay} ? 'delay => ' . secs($op->{delay}) : (),
					defined $op->{reason} ? 'reason => ' . quote($op->{reason}) : ());
			},
			apply => sub {
				my ($c, $op, @rest) = @_;
				return apply_settle($c, $op, $verb, @rest);
			} };
	}
}

$VERB{ack_dequeue} = {
	idle => 4, tx => 3,
	make => sub {
		my ($c, $op) = @_;
		some_deliveries($c, $op, span($c, 1, 4)) or return 0;
		$op->{queues} = [ $op->{q} ];
		return make_dequeue($c, $op);
	},
	can => sub { return can_settle(@_) && can_dequeue(@_) },
	sql => sub {
		my ($c, $op) = @_;
		my @d = refs_of($c, $op);
		return "SELECT $DELIVERY FROM mq.ack_dequeue(" . join(', ', quote($op->{q}), array_sql('bigint', map { $_->{id} } @d),
			array_sql('bigint', map { $_->{receipt} } @d), dequeue_args($op)) . ') m';
	},
	apply => sub {
		my ($c, $op, $res, $t0, $t1) = @_;
		return wrong_error($res) if $res->{err};
		my $q = queue($c, $op->{q});
		touch($c, tx_of($c, $op), $op->{q});
		$c->{model}->settle(tx_of($c, $op), $q, $_->{m}, 'ack', t0 => $t0, t1 => $t1) foreach current_of($c, $op);
		return deliver($c, $op, $res->{rows}, $t0, $t1);
	} };

1;

# Queues as their owner makes and changes them.
package Verbs;

use strict;
use warnings;

use List::Util qw(max min);

our %VERB;

# ordered together with drop_head is left to test/pgtap/43-together.sql
sub some_options
{
	my ($c, $p, $old) = @_;
	my %o;
	my $maybe = sub { my ($name, @from) = @_; $o{$name} = pick($c, @from) if chance($c, $p) };

	$maybe->('lease', 20, 60, 600);
	$maybe->('max_attempts', 1, 2, 3, 0);
	$maybe->('backoff', 0, 1, 30, 300);
	$maybe->('backoff_limit', 60, 3600);
	$maybe->('dead_letter', '', '%_dead', '%_dead');
	$maybe->('ttl', 120, 3600);
	$maybe->('max_length', 5, 15, 40);
	$maybe->('overflow', 'reject', 'drop_head');
	$maybe->('ordered', 0, 1);
	$maybe->('dedup_window', 0, 60, 300);
	$maybe->('retain', 30 * 86400);
	$maybe->('max_in_flight', 1, 3, 10);
	$maybe->('rate_limit', 0.02, 0.2, 5);
	my %all = (%Model::DEFAULT, %{ $old // {} }, %o);
	delete $o{ exists $o{ordered} ? 'ordered' : 'overflow' } if $all{ordered} && $all{overflow} eq 'drop_head';
	return \%o;
}

my %INTERVAL = map { $_ => 1 } qw(lease backoff backoff_limit ttl dedup_window retain);

sub option_args
{
	my ($o) = @_;
	return map {
		my $v = $o->{$_};
		"$_ => " . ($INTERVAL{$_} ? secs($v) : /^(dead_letter|overflow)$/ ? quote($v) : /^(ordered|unlogged)$/ ? ($v ? 'true' : 'false') : $v)
	} sort keys %$o;
}

# What changes the definition of a queue holds its row until the end.
sub can_change
{
	my ($c, $op) = @_;
	my $tx = tx_of($c, $op);
	return plain_ok($c, $op) && usable($c, $op, $op->{q}) && !queue($c, $op->{q})->{ddl} && at_rest(queue($c, $op->{q}));
}

sub change
{
	my ($c, $op, $res, $work) = @_;
	return wrong_error($res) if $res->{err};
	my $tx = tx_of($c, $op);
	my $q = queue($c, $op->{q});
	$q->{ddl} = $tx;
	touch($c, $tx, $op->{q});
	Model::did($tx, sub { $q->{ddl} = undef; $work->($q, @_) }, sub { $q->{ddl} = undef });
	return;
}

foreach my $verb ('pause', 'resume')
{
	$VERB{$verb} = {
		idle => $verb eq 'pause' ? 0.5 : 0, tx => $verb eq 'pause' ? 0.4 : 0, settled => 1,
		make => sub { my ($c, $op) = @_; $op->{q} = some_queue($c) },
		can => \&can_change,
		sql => sub { my ($c, $op) = @_; return "SELECT mq.$verb(" . quote($op->{q}) . ')' },
		apply => sub {
			my ($c, $op, $res) = @_;
			return change($c, $op, $res, sub { $_[0]{paused} = $verb eq 'pause' ? 1 : 0 });
		} };
}
# those that are paused, so that they do not stay so for long
$VERB{resume}{idle} = $VERB{resume}{tx} = 4;
$VERB{resume}{make} = sub {
	my ($c, $op) = @_;
	my @paused = grep { queue($c, $_)->{paused} } sort keys %{ $c->{model}{q} };
	return @paused ? $op->{q} = pick($c, @paused) : 0;
};

$VERB{alter_queue} = {
	idle => 1, tx => 0.7, settled => 1,
	make => sub {
		my ($c, $op) = @_;
		$op->{q} = pick($c, grep { !/_dead$/ } sort keys %{ $c->{model}{q} });
		my $opt = queue($c, $op->{q})->{opt};
		$op->{set} = some_options($c, 0.15, $opt);
		$op->{unset} = [ grep { !exists $op->{set}{$_} && defined $opt->{$_} && chance($c, 0.4) } qw(ttl max_length retain max_in_flight rate_limit) ];
		return %{ $op->{set} } || @{ $op->{unset} };
	},
	can => sub {
		my ($c, $op) = @_;
		return 0 unless can_change($c, $op);
		my $o = queue($c, $op->{q})->{opt};
		return !(($op->{set}{ordered} // $o->{ordered}) && ($op->{set}{overflow} // $o->{overflow}) eq 'drop_head');
	},
	sql => sub {
		my ($c, $op) = @_;
		return 'SELECT mq.alter_queue(' . join(', ', quote($op->{q}), option_args($op->{set}),
			@{ $op->{unset} } ? "unset => '{" . join(',', @{ $op->{unset} }) . "}'" : ()) . ')';
	},
	apply => sub {
		my ($c, $op, $res) = @_;
		my %set = (%{ $op->{set} }, map { $_ => undef } @{ $op->{unset} });
		my $q = queue($c, $op->{q});
		$set{dead_letter} =~ s/%/$op->{q}/ if defined $set{dead_letter};
		return change($c, $op, $res, sub {
				my ($q, $t0, $t1) = @_;
				my $rate = $q->{opt}{rate_limit} // 0;
				$c->{model}->need_dead_letters($set{dead_letter}) if defined $set{dead_letter};
				$q->{has_archive} = 1 if defined $set{retain};
				$q->{altered} = ++$c->{model}{txn};
				push @{ $q->{was} }, { %{ $q->{opt} } };
				@{ $q->{opt} }{ keys %set } = values %set;
				my $new = $q->{opt}{rate_limit};
				if ($new && $new != $rate)
				{
					my $bucket = max(1, 1 / $new);
					$q->{full} = [ min($q->{full}[0], $t0 + $bucket), min($q->{full}[1], $t1 + $bucket) ];
				}
			});
	} };

# Alone with the queue: nobody else's open transaction knows it.
sub alone
{
	my ($c, $op) = @_;
	my $q = queue($c, $op->{q}) or return 0;
	return 0 if $q->{ddl} || touched_by_others($c, $op, $op->{q}) || !at_rest($q);
	return !grep { my $b = $_; grep { $_ eq $op->{q} } @{ $b->{queues} // [] }, $b->{q} // '' } values %{ $c->{busy} };
}

$VERB{truncate} = {
	idle => 0.12, tx => 0, settled => 1,
	make => sub { my ($c, $op) = @_; $op->{undone} = chance($c, 0.5); $op->{q} = some_queue($c) },
	can => \&alone,
	sql => sub {
		my ($c, $op) = @_;
		return $op->{undone} ? ('BEGIN', qq(TRUNCATE mq."q_$op->{q}"), 'ROLLBACK') : qq(TRUNCATE mq."q_$op->{q}");
	},
	apply => sub {
		my ($c, $op, $res) = @_;
		return wrong_error($res) if $res->{err};
		my $q = queue($c, $op->{q});
		Model::remove($q, $_) foreach $op->{undone} ? () : my @all = @{ $q->{msgs} };
		return;
	} };
$VERB{create_queue} = {
	idle => 0, tx => 0, make => sub { 1 }, can => sub { my ($c, $op) = @_; return !queue($c, $op->{q}) },
	sql => sub { my ($c, $op) = @_; return 'SELECT mq.create_queue(' . join(', ', quote($op->{q}), option_args($op->{set})) . ')' },
	apply => sub {
		my ($c, $op, $res) = @_;
		return wrong_error($res) if $res->{err};
		$c->{model}->create_queue($op->{q}, %{ $op->{set} });
		return;
	} };
$VERB{drop_queue} = {
	idle => 0.12, tx => 0, settled => 1,
	make => sub {
		my ($c, $op) = @_;
		$op->{q} = pick($c, grep { !/_dead$/ } sort keys %{ $c->{model}{q} });
		$op->{set} = some_options($c, 0.35);
		$op->{set}{unlogged} = 1 if chance($c, 0.2);
		return 1;
	},
	can => \&alone,
	sql => sub {
		my ($c, $op) = @_;
		return ('SELECT mq.drop_queue(' . quote($op->{q}) . ')', $VERB{create_queue}{sql}->($c, $op));
	},
	apply => sub {
		my ($c, $op, $res) = @_;
		return wrong_error($res) if $res->{err};
		Model::remove(queue($c, $op->{q}), $_) foreach my @all = @{ queue($c, $op->{q})->{msgs} };
		$c->{model}->drop_queue($op->{q});
		$c->{model}->create_queue($op->{q}, %{ $op->{set} });
		return;
	} };

1;

# Sessions, transactions and time.
package Verbs;

use strict;
use warnings;

our %VERB;

my %ISO = (rc => 'READ COMMITTED', rr => 'REPEATABLE READ', ser => 'SERIALIZABLE');
sub in_tx { my ($c, $op) = @_; return !!tx_of($c, $op) }
sub idle { return !in_tx(@_) }

# apply of these is told the time of the statement and ends the transaction itself
$VERB{begin} = {
	idle => 13, tx => 0, control => 1, make => sub { my ($c, $op) = @_; $op->{iso} = pick($c, qw(rc rc rc rr ser)) }, can => \&idle,
	sql => sub { my ($c, $op) = @_; return "BEGIN ISOLATION LEVEL $ISO{ $op->{iso} }" },
	apply => sub { my ($c, $op, $res) = @_; $c->{model}->begin($op->{s}, $op->{iso}); return wrong_error($res) } };
foreach my $verb ('commit', 'rollback')
{
	$VERB{$verb} = {
		idle => 0, tx => $verb eq 'commit' ? 11 : 6, control => 1, make => sub { 1 }, can => \&in_tx, sql => sub { uc $verb },
		apply => sub {
			my ($c, $op, $res, $t0, $t1) = @_;
			my $m = $c->{model};
			$verb eq 'commit' && !$m->tx($op->{s})->{failed} ? $m->commit($op->{s}, $t0, $t1) : $m->rollback($op->{s}, $t0, $t1);
			return wrong_error($res);
		} };
}
$VERB{savepoint} = {
	idle => 0, tx => 6, control => 1, make => sub { my ($c, $op) = @_; $op->{name} = pick($c, 'a', 'b', 'c') },
	can => sub { my ($c, $op) = @_; my $tx = tx_of($c, $op); return $tx && !$tx->{failed} && @{ $tx->{sp} } < 5 },
	sql => sub { my ($c, $op) = @_; return "SAVEPOINT $op->{name}" },
	apply => sub { my ($c, $op, $res) = @_; $c->{model}->savepoint($op->{s}, $op->{name}); return wrong_error($res) } };
sub some_savepoint
{
	my ($c, $op) = @_;
	my $tx = tx_of($c, $op);
	return @{ $tx->{sp} } ? $op->{name} = pick($c, @{ $tx->{sp} }) : 0;
}
sub has_savepoint { my ($c, $op) = @_; my $tx = tx_of($c, $op); return $tx && grep { $_ eq $op->{name} } @{ $tx->{sp} } }
$VERB{rollback_to} = {
	idle => 0, tx => 4, control => 1, make => \&some_savepoint, can => \&has_savepoint,
	sql => sub { my ($c, $op) = @_; return "ROLLBACK TO $op->{name}" },
	apply => sub {
		my ($c, $op, $res, $t0, $t1) = @_;
		$c->{model}->rollback_to($op->{s}, $op->{name}, $t0, $t1);
		return wrong_error($res);
	} };
$VERB{release_savepoint} = {
	idle => 0, tx => 2, control => 1, make => \&some_savepoint,
	can => sub { my ($c, $op) = @_; return has_savepoint($c, $op) && !tx_of($c, $op)->{failed} },
	sql => sub { my ($c, $op) = @_; return "RELEASE $op->{name}" },
	apply => sub { my ($c, $op, $res) = @_; $c->{model}->release_savepoint($op->{s}, $op->{name}); return wrong_error($res) } };

$VERB{prepare} = {
	idle => 0, tx => 1.5, control => 1, make => sub { my ($c, $op) = @_; $op->{gid} = "g$op->{n}" },
	can => sub {
		my ($c, $op) = @_;
		my $tx = tx_of($c, $op);
		return $tx && !$tx->{failed} && keys %{ $c->{model}{prepared} } < 3
		  && !grep { $_->{ddl} && $_->{ddl} == $tx } values %{ $c->{model}{q} };
	},
	sql => sub { my ($c, $op) = @_; return "PREPARE TRANSACTION '$op->{gid}'" },
	apply => sub { my ($c, $op, $res) = @_; $c->{model}->prepare($op->{s}, $op->{gid}); return wrong_error($res) } };
foreach my $verb ('commit_prepared', 'rollback_prepared')
{
	$VERB{$verb} = {
		idle => 3, tx => 0, control => 1, retires => 1,
		make => sub {
			my ($c, $op) = @_;
			my @gids = sort keys %{ $c->{model}{prepared} };
			return @gids ? $op->{gid} = pick($c, @gids) : 0;
		},
		# a queue that is paused does not look whether it has ended
		can => sub {
			my ($c, $op) = @_;
			my $tx = $c->{model}{prepared}{ $op->{gid} };
			return idle(@_) && $tx && !grep { my $q = queue($c, $_); $q && $q->{paused} } keys %{ $tx->{touched} };
		},
		sql => sub { my ($c, $op) = @_; (my $w = uc $verb) =~ s/_/ /; return "$w '$op->{gid}'" },
		apply => sub {
			my ($c, $op, $res, $t0, $t1) = @_;
			$c->{model}->end_prepared($op->{gid}, $verb eq 'commit_prepared', $t0, $t1);
			return wrong_error($res);
		} };
}

$VERB{listen} = {
	idle => 0.5, tx => 0, make => sub { my ($c, $op) = @_; $op->{q} = some_queue($c) }, can => sub { my ($c, $op) = @_; return usable($c, $op, $op->{q}) },
	sql => sub { my ($c, $op) = @_; return 'SELECT mq.listen(' . quote($op->{q}) . ')' },
	apply => sub {
		my ($c, $op, $res) = @_;
		$c->{listens}{ $op->{s} }{"mq_$op->{q}"} = 1;
		return wrong_error($res);
	} };
$VERB{unlisten} = {
	%{ $VERB{listen} }, idle => 0.3,
	sql => sub { my ($c, $op) = @_; return 'SELECT mq.unlisten(' . quote($op->{q}) . ')' },
	apply => sub { my ($c, $op, $res) = @_; return wrong_error($res) } };

# The driver does these two; the transaction is rolled back first, then leases "as
# long as the session lives" end.
$VERB{session_end} = {
	idle => 0.5, tx => 0.4, control => 1, make => sub { 1 }, can => sub { 1 },
	apply => sub {
		my ($c, $op, $res, $t0, $t1) = @_;
		$c->{model}->rollback($op->{s}, $t0, $t1);
		$c->{model}->end_session($op->{s}, $t0, $t1);
		return;
	} };
$VERB{discard_all} = {
	idle => 0.5, tx => 0, control => 1, make => sub { 1 }, can => \&idle, sql => sub { 'DISCARD ALL' },
	apply => sub {
		my ($c, $op, $res, $t0, $t1) = @_;
		$c->{model}->end_session($op->{s}, $t0, $t1);
		return wrong_error($res);
	} };

$VERB{time_passes} = {
	idle => 5, tx => 0, control => 1, make => sub { my ($c, $op) = @_; $op->{for} = pick($c, 1, 15, 40, 120, 700, 4000) }, can => sub { 1 } };

my @BAD = (
	[ 'enqueue, no such queue', q{SELECT mq.enqueue('nowhere', '1')}, '42704' ],
	[ 'enqueue, priority 10', q{SELECT mq.enqueue('%s', '1', priority => 10)}, '22023' ],
	[ 'enqueue, body and data', q{SELECT mq.enqueue('%s', '1', data => 'x')}, '22023' ],
	[ 'enqueue, delay and deliver_at', q{SELECT mq.enqueue('%s', '1', delay => '1 s', deliver_at => now())}, '22023' ],
	[ 'enqueue_batch, unequal arrays', q{SELECT mq.enqueue_batch('%s', '{1,2}', keys => '{a}')}, '22023' ],
	[ 'dequeue, max 0', q{SELECT * FROM mq.dequeue('%s', 0)}, '22023' ],
	[ 'dequeue_any, no such queue', q{SELECT * FROM mq.dequeue_any('{%s,nowhere}')}, '42704' ],
	[ 'insert with dedup_id', q{INSERT INTO mq."q_%s" (body, dedup_id) VALUES ('1', 'x')}, '0A000' ],
	[ 'create_queue twice', q{SELECT mq.create_queue('%s')}, '42710' ],
	[ 'extend, negative', q{SELECT mq.extend('%s', 1, 1, '-1 s')}, '22023' ]);
$VERB{error} = {
	idle => 0.5, tx => 0.6, make => sub { my ($c, $op) = @_; $op->{bad} = span($c, 0, $#BAD); $op->{q} = some_queue($c) },
	can => sub {
		my ($c, $op) = @_;
		# the definition may have changed since the snapshot
		return usable($c, $op, $op->{q}) && !queue($c, $op->{q})->{ddl} && ($BAD[ $op->{bad} ][2] ne '42710' || plain_ok($c, $op));
	},
	sql => sub { my ($c, $op) = @_; (my $t = $BAD[ $op->{bad} ][1]) =~ s/%s/$op->{q}/; return $t },
	apply => sub { my ($c, $op, $res) = @_; touch($c, tx_of($c, $op), $op->{q}); return wrong_error($res, $BAD[ $op->{bad} ][2]) } };

1;

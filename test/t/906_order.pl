# The order of deliveries at random, against a model: priorities, times, failures,
# releases, savepoints, late commits, rows that others hold, change or delete.  First
# with no worker, so that failures are known to the lease table only, then with one.
# MQ_ORDER_SEED repeats a run, MQ_ORDER_STEPS makes it longer.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use DBI;
use Test::More;

my $seed = $ENV{MQ_ORDER_SEED} // int(rand(1_000_000));
my $steps = $ENV{MQ_ORDER_STEPS} // 400;

# Messages by id: priority, time (undef: none), attempts; state is ready, held (by
# the other session) or leased.
my (%m, $consumer, $other, $clock, @said, $worker);

sub pick { return $_[ int rand @_ ] }
sub chance { return rand() < shift }
sub ready { return grep { $m{$_}{state} eq 'ready' } keys %m }

# Some of the messages that are ready, at most so many.
sub some
{
	my ($max) = @_;
	my @all = sort { $a <=> $b } ready();
	my %some = map { $_ => 1 } map { pick(@all) } 1 .. ($max < @all ? $max : scalar @all);

	return sort { $a <=> $b } keys %some;
}

sub by_order
{
	my ($p, $q) = @m{ $a, $b };

	return $q->{priority} <=> $p->{priority}
	  || (defined $q->{time}) <=> (defined $p->{time})
	  || ($p->{time} // 0) <=> ($q->{time} // 0)
	  || $a <=> $b;
}

# Microseconds, later than any time before.
sub now_us
{
	my ($now) = $consumer->selectrow_array(q{SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint});

	return $clock = $now > $clock ? $now : $clock + 1;
}

sub past { return now_us() - 60_000_000 - int(rand(3_600_000_000)) }
sub to_time { return sprintf q{'epoch'::timestamptz + %d * interval '1 us'}, shift }

sub enqueue
{
	my ($session) = @_;
	my @ids;

	for (1 .. 1 + int(rand(6)))
	{
		my $priority = pick(0, 0, 0, 5, 9);
		my $time = chance(0.4) ? past() : undef;
		my $at = defined $time ? to_time($time) : 'NULL';
		my ($id) = $session->selectrow_array("SELECT mq.enqueue('o', priority => $priority, deliver_at => $at)");

		$m{$id} = { priority => $priority, time => $time, attempts => 0, state => $session == $consumer ? 'ready' : 'held' };
		push @ids, $id;
	}
	return @ids;
}

# Dequeues and compares; what came is leased, and returned as [id, receipt].
sub dequeue
{
	my ($max) = @_;
	my @all = sort by_order ready();
	my @got = @{ $consumer->selectall_arrayref("SELECT id, receipt, attempt FROM mq.dequeue('o', $max)") };
	my %got = map { $_->[0] => 1 } @got;
	my @want;

	# the worker may have just that one in hand to write its failure
	for (@all)
	{
		push @want, $_ if @want < $max && ($got{$_} || !$worker || !$m{$_}{unwritten});
	}
	my $want = join ' ', map { "$_/" . ($m{$_}{attempts} + 1) } @want;
	my $got = join ' ', map { "$_->[0]/$_->[2]" } @got;

	push @said, "dequeued $got";
	die "wanted $want\n", map({ "$_: priority $m{$_}{priority}, time " . ($m{$_}{time} // 'none') . "\n" } @want) if $want ne $got;
	$m{ $_->[0] }{state} = 'leased' for @got;
	return @got;
}

# The deliveries have failed, the first one first.
sub failed
{
	for (@_)
	{
		$m{ $_->[0] }{state} = 'ready';
		$m{ $_->[0] }{attempts}++;
		$m{ $_->[0] }{time} = ++$clock;
		$m{ $_->[0] }{unwritten} = 1;
	}
	return;
}

sub settle
{
	my @got = sort { rand() <=> 0.5 } @_;
	my $verb = pick('ack', 'release', 'nack');

	for (@got)
	{
		my ($id, $receipt) = @$_;

		now_us() if $verb eq 'nack';
		$consumer->do("SELECT mq.$verb('o', $id, $receipt" . ($verb eq 'nack' ? ", '0'" : '') . ')');
		push @said, "$verb $id";
		delete $m{$id} if $verb eq 'ack';
		$m{$id}{state} = 'ready' if $verb eq 'release';
		next if $verb ne 'nack';
		failed($_);
		$m{$id}{unwritten} = 0;
	}
	return;
}

my @steps = (
	enqueue => sub { push @said, 'enqueued ' . join ' ', enqueue($consumer) },
	settle => sub { settle(dequeue(1 + int rand 5)) },
	rollback => sub {
		$consumer->do('BEGIN');
		my @got = dequeue(1 + int rand 5);
		now_us();
		$consumer->do('ROLLBACK');
		failed(@got);
		push @said, 'rolled back';
	},
	savepoint => sub {
		$consumer->do('BEGIN');
		my @before = chance(0.5) ? dequeue(1 + int rand 3) : ();
		$consumer->do('SAVEPOINT s');
		my @got = dequeue(1 + int rand 4);
		now_us();
		$consumer->do('ROLLBACK TO s');
		failed(@got);
		push @said, 'rolled back to the savepoint';
		@got = dequeue(1 + int rand 4);
		if (chance(0.5))
		{
			$consumer->do('COMMIT');
			return settle(@before, @got);
		}
		now_us();
		$consumer->do('RELEASE s; ROLLBACK');	# else the savepoint would end first
		failed(@before, @got);
		push @said, 'rolled back';
	},
	late => sub {
		$other->do('BEGIN');
		my @ids = enqueue($other);
		push @said, 'others enqueue ' . join ' ', @ids;
		enqueue($consumer) if chance(0.7);
		settle(dequeue(1 + int rand 5));
		$other->do('COMMIT');
		$m{$_}{state} = 'ready' for @ids;
		push @said, '... and commit';
	},
	others => sub {
		my @ids = some(3) or return;
		my $ids = join ',', @ids;
		my $what = pick('lock', 'priority', 'time', 'delete');
		my $commit = chance(0.5);
		my %new;

		$other->do('BEGIN');
		for my $id (@ids)
		{
			$new{$id} = { %{ $m{$id} } };
			$new{$id}{priority} = pick(0, 5, 9) if $what eq 'priority';
			$new{$id}{time} = past() if $what eq 'time';
			$other->do(
				  $what eq 'lock' ? "SELECT FROM mq.q_o WHERE id = $id FOR UPDATE"
				: $what eq 'delete' ? "DELETE FROM mq.q_o WHERE id = $id"
				: $what eq 'time' ? 'UPDATE mq.q_o SET ready_at = ' . to_time($new{$id}{time}) . " WHERE id = $id"
				: "UPDATE mq.q_o SET priority = $new{$id}{priority} WHERE id = $id");
			$m{$id}{state} = 'held';
		}
		push @said, "others $what $ids";
		my @got = chance(0.9) ? dequeue(1 + int rand 4) : ();
		$other->do($commit ? 'COMMIT' : 'ROLLBACK');
		push @said, $commit ? '... and commit' : '... and roll back';
		for my $id (@ids)
		{
			$m{$id} = $new{$id} if $commit;
			$m{$id}{state} = 'ready';
			delete $m{$id} if $commit && $what eq 'delete';
		}
		# a failed message whose row is locked, no more, is looked at again once a second
		select undef, undef, undef, 1.1 if $what eq 'lock' && grep { $m{$_}{attempts} > 0 } @ids;
		settle(@got);
	},
	own => sub {
		my @ids = some(3) or return;
		my $ids = join ',', @ids;
		my $what = pick('DELETE FROM mq.q_o', "UPDATE mq.q_o SET headers = '{}'");

		$consumer->do('BEGIN');
		$consumer->do("$what WHERE id IN ($ids)");
		push @said, "$what $ids";
		$m{$_}{state} = 'held' for @ids;
		my @got = dequeue(1 + int rand 4);
		$m{$_}{state} = 'ready' for @ids;
		now_us();
		$consumer->do('ROLLBACK');
		failed(@got);
		push @said, 'rolled back';
	},
	pause => sub { select undef, undef, undef, 0.6 if chance(0.1) },
);
my %step = @steps;
my @names = sort keys %step;

for (0, 1)
{
	$worker = $_;
	my $node = mq_node("worker$worker", conf => $worker ? '' : 'max_worker_processes = 1');
	my $made = $node->safe_psql('postgres', q{
SELECT mq.create_queue('o', dead_letter => '', max_attempts => 0, backoff => '0', lease => '1 hour')});
	my @connect = (sprintf('dbi:Pg:host=%s;port=%s;dbname=postgres', $node->host, $node->port), undef, undef,
		{ RaiseError => 1, PrintError => 0, AutoInactiveDestroy => 1 });

	wait_for_worker($node) if $worker;
	srand($seed + $worker);
	($consumer, $other) = map { DBI->connect(@connect) } 1 .. 2;
	($clock, %m, @said) = (0);
	my $done = 0;

	eval {
		for (1 .. $steps)
		{
			my $name = pick(@names);

			$name = 'enqueue' if keys %m < 8;
			$name = 'settle' if keys %m > 60;
			$step{$name}->();
			$done++;
		}
		settle(dequeue(1000)) while ready();
		1;
	};
	is($done . ($@ && ": $@"), $steps, ($worker ? 'with a worker' : 'without a worker') . ': all in order')
	  or diag("MQ_ORDER_SEED=$seed\n" . join "\n", splice @said, @said > 60 ? -60 : 0);
	$_->disconnect for $consumer, $other;
	$node->stop;
}

done_testing();

# A commit is visible to others before it tells mq what it did.  A session that stops
# between the two shows what they make of it: nothing is lost, nothing comes twice,
# and the counters agree in the end with the rows.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use PostgreSQL::Test::Utils ();
use Test::More;

my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
my $dir = PostgreSQL::Test::Utils::tempdir();
my $library = "$dir/late_commit.so";
chomp(my $include = qx{$pg_config --includedir-server});
system($ENV{CC} || 'cc', '-shared', '-fPIC', "-I$include", '-o', $library,
	"$FindBin::RealBin/../fixtures/late_commit.c") == 0
  or die 'the library could not be built';

my $node = mq_node('main', conf => "autovacuum = off\n");
my ($late, $other, $third) = map { session($node) } 1 .. 3;
my $third_pid = backend_pid($third);
my $at = "$dir/at";
my $n = 0;

$late->query_safe("SELECT mq.create_queue('first', dead_letter => ''); SELECT mq.enqueue('first', '1'); LOAD '$library'");

# Runs a statement and returns when it is visible to others.  Commits before it do
# not stop.
sub commit_late
{
	my ($sql) = @_;

	start_query($late, "BEGIN; $sql; SET LOCAL late_commit.at = '$at'; COMMIT");
	until (-e $at) { select undef, undef, undef, 0.001 }
	return;
}

sub go_on
{
	unlink $at or die "$at: $!";
	my ($out, $err) = finish_query($late);
	is($err, '', '... the late commit went well') if $err ne '';
	return;
}

# far: with a message that is delayed, lest a counter be saved by being zero; without
# one, lest it be saved by not being so.
my $far;

sub new_queue
{
	my %opt = (dead_letter => q{''}, backoff => q{'1 hour'}, @_);
	my $q = 'q' . ++$n;

	$other->query_safe("SELECT mq.create_queue('$q'" . join('', map { ", $_ => $opt{$_}" } sort keys %opt) . ')');
	$other->query_safe("SELECT mq.enqueue('$q', '\"far\"', delay => '1 day')") if $far && !$opt{ordered};
	counted($q);
	return $q;
}

sub enqueue
{
	my ($q, $body, $more) = @_;
	return "SELECT mq.enqueue('$q', '\"$body\"'" . ($more ? ", $more" : '') . ')';
}

my $NOW = 'deliver_at => now()';

sub take
{
	my ($q) = @_;
	return $other->query_safe("SELECT string_agg(body #>> '{}', ' ' ORDER BY ordinality) FROM mq.dequeue('$q', 10) WITH ORDINALITY");
}

sub settle
{
	my ($q, $verb) = @_;
	$other->query_safe("SELECT mq.$verb(f.queue, f.id, f.receipt) FROM mq.in_flight f WHERE queue = '$q'");
	return;
}

sub fail { my ($q) = @_; return $third->query_safe("BEGIN; SELECT count(*) FROM mq.dequeue('$q'); ROLLBACK") }

# Leases one message; mine has it.
sub take_mine
{
	my ($q) = @_;
	$other->query_safe("TRUNCATE mine; INSERT INTO mine SELECT id, receipt FROM mq.dequeue('$q')");
	return;
}

sub counted
{
	my ($q) = @_;
	return $other->query_safe("SELECT ready, delayed, in_flight, exact FROM mq.stats WHERE queue = '$q'");
}

# What is to come in a moment is past, and somebody has looked.
sub time_passes
{
	my ($q) = @_;
	$other->query_safe("SELECT pg_sleep(greatest(extract(epoch FROM max(ready_at) - clock_timestamp()), 0) + 0.001)
		FROM mq.q_$q WHERE ready_at < now() + interval '1 minute'");
	counted($q);
	return;
}

# The counters against the rows: now, and with one more message.
sub agree
{
	my ($q, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $there = "SELECT count(*) FILTER (WHERE state = 'ready'), count(*) FILTER (WHERE state = 'delayed'),
		count(*) FILTER (WHERE state = 'leased'), true FROM mq.browse('$q', 100)";

	return is(counted($q), $other->query_safe($there), ($far ? '' : 'nothing else is delayed: ') . $name);
}

sub cases
{
	my $q;

	# an INSERT
	for my $time ($NOW, '')
	{
		for my $looks (1, 0)
		{
			my $name = ($time ? 'with' : 'without') . ' a time' . ($looks ? ', counted before' : '');

			$q = new_queue();
			commit_late(enqueue($q, 'late', $time));
			$third->query_safe(enqueue($q, 'next', $time));
			is(take($q), 'late next', "$name: an INSERT is found before its callback by who looks for the next");
			counted($q) if $looks;
			go_on();
			is(take($q), '', "... and not again after it");
			agree($q, '... leased');
			settle($q, 'ack');
			agree($q, '... acked');

			$q = new_queue();
			commit_late(enqueue($q, 'late', $time));
			$third->query_safe(enqueue($q, 'next', $time));
			is($other->query_safe("SELECT count(mq.ack(m)) FROM mq.dequeue('$q', 10) m"), 2, '... taken and acked before its callback');
			counted($q) if $looks;
			go_on();
			is(take($q), '', '... it does not come again');
			agree($q, '...');
		}
	}
	$q = new_queue();
	commit_late(enqueue($q, 'late', q{deliver_at => now() + interval '0.2 s'}));
	$third->query_safe(enqueue($q, 'next', $NOW));
	time_passes($q);
	go_on();
	agree($q, 'an INSERT that came due before its callback');
	is(take($q), 'next late', '... is delivered');

	# an UPDATE of a message that nobody has; taken at its new time, before the callback
	for my $from (q{now() + interval '1 hour'}, q{now() - interval '1 hour'}, 'NULL')
	{
		for my $how (0 .. 3)
		{
			my ($ack, $looks) = ($how & 1, $how & 2);

			$q = new_queue();
			$third->query_safe(enqueue($q, 'moved', $from eq 'NULL' ? '' : "deliver_at => $from"));
			counted($q);
			commit_late("UPDATE mq.q_$q SET ready_at = now() WHERE body = '\"moved\"'");
			$third->query_safe(enqueue($q, 'next', $NOW));
			is(take($q), 'moved next', "from $from: a message is found where an UPDATE has put it, before its callback");
			settle($q, 'ack') if $ack;
			counted($q) if $looks;
			go_on();
			is(take($q), '', '... and not again after it');
			agree($q, '... ' . ($ack ? 'acked' : 'leased') . ($looks ? ', counted before' : ''));
			next if $ack;
			settle($q, 'release');
			agree($q, '... released');
			is(take($q), 'moved next', '... and delivered again');
		}
	}
	$q = new_queue();
	$third->query_safe(enqueue($q, 'x', q{delay => '1 hour'}));
	counted($q);
	commit_late("UPDATE mq.q_$q SET ready_at = now() + interval '2 hours' WHERE body = '\"x\"'; UPDATE mq.q_$q SET ready_at = now() WHERE body = '\"x\"'");
	$third->query_safe(enqueue($q, 'next', $NOW));
	is(take($q), 'x next', 'moved twice in a transaction, and taken before its callback');
	go_on();
	agree($q, '... leased');
	settle($q, 'ack');
	agree($q, '... acked');

	# an UPDATE of a leased message
	for my $verb (qw(ack release))
	{
		for my $looks (1, 0)
		{
			$q = new_queue();
			$third->query_safe(enqueue($q, 'x'));
			take_mine($q);
			commit_late("UPDATE mq.q_$q SET ready_at = now() + interval '" . ($looks ? '0.2 s' : '1 hour') . "' WHERE body = '\"x\"'");
			$third->query_safe(enqueue($q, 'next', $NOW));
			time_passes($q) if $looks;
			settle($q, $verb);
			go_on();
			agree($q, 'an UPDATE of a leased message' . ($looks ? ', come due' : '') . ", and $verb before its callback");
		}
	}

	# two of them, told in the other order; one more may have been told before
	for my $moved (0, 1)
	{
		my $time = $moved ? '2 days' : '2 hours';

		$q = new_queue();
		$third->query_safe(enqueue($q, 'x'));
		take_mine($q);
		$third->query_safe("UPDATE mq.q_$q SET ready_at = now() + interval '1 day' WHERE body = '\"x\"'") if $moved;
		commit_late("UPDATE mq.q_$q SET ready_at = now() + interval '$time' WHERE body = '\"x\"'");
		$third->query_safe("UPDATE mq.q_$q SET ready_at = now() WHERE body = '\"x\"'");
		go_on();
		start_query($third, "SELECT body #>> '{}' FROM mq.dequeue('$q', wait => '10 s')");
		wait_asleep($node, $third_pid);
		settle($q, 'release');
		is(scalar finish_query($third), 'x', "a leased message moved to $time and back, told in the other order, is delivered");
		agree($q, '...');
	}

	$q = new_queue();
	$third->query_safe(enqueue($q, 'x'));
	commit_late("UPDATE mq.q_$q SET ready_at = now() + interval '2 hours' WHERE body = '\"x\"'");
	$third->query_safe("UPDATE mq.q_$q SET ready_at = now() WHERE body = '\"x\"'");
	is(take($q), 'x', '... or leased after both, before the first is told');
	go_on();
	settle($q, 'release');
	is(take($q), 'x', '... and released');
	agree($q, '...');

	$q = new_queue(backoff => q{'0'});
	$third->query_safe(enqueue($q, 'x'));
	fail($q);
	commit_late("UPDATE mq.q_$q SET ready_at = now() + interval '2 hours' WHERE body = '\"x\"'");
	$third->query_safe("UPDATE mq.q_$q SET ready_at = now() WHERE body = '\"x\"'");
	go_on();
	is(take($q), 'x', '... so is one that has failed');

	# failures that only memory knows
	for my $written (0, 1)
	{
		$q = new_queue(backoff => q{'0'});
		$third->query_safe(enqueue($q, 'moved', $NOW));
		fail($q);
		commit_late("UPDATE mq.q_$q SET ready_at = now() + interval '1 hour' WHERE body = '\"moved\"'");
		is(take($q), '', 'a failed delivery is put off by an UPDATE, before its callback');
		my $is_written = "SELECT attempts = 1 FROM mq.q_$q WHERE body = '\"moved\"'";
		if ($written)
		{
			$node->poll_query_until('postgres', $is_written) or die 'the worker does not write';
		}
		go_on();
		is(take($q), '', '... and after it');
		$node->poll_query_until('postgres', $is_written) or die 'the worker does not write';
		agree($q, '... written ' . ($written ? 'before' : 'after'));
	}
	for my $time ($NOW, '')
	{
		$q = new_queue(backoff => q{'0'});
		$third->query_safe(enqueue($q, 'x', $time));
		fail($q);
		commit_late("UPDATE mq.q_$q SET attempts = 3, ready_at = now() + interval '1 hour' WHERE body = '\"x\"'");
		is(take($q), '', 'a failed message that an UPDATE has given other attempts and another time is not delivered');
		go_on();
		agree($q, '...');
	}

	# a DELETE: of a ready message, of one that has failed, of a leased one
	for my $state (qw(ready failed leased))
	{
		for my $looks (0, 1)
		{
			$q = new_queue(backoff => q{'0'});
			$third->query_safe(enqueue($q, 'gone', $NOW));
			fail($q) if $state eq 'failed';
			take_mine($q) if $state eq 'leased';
			commit_late("DELETE FROM mq.q_$q WHERE body = '\"gone\"'");
			counted($q) if $looks;
			settle($q, 'ack') if $state eq 'leased';
			is(take($q), '', "a $state message that is deleted is not delivered before the callback");
			go_on();
			is(take($q), '', '... nor after it');
			agree($q, '...' . ($looks ? ' counted before' : ''));
		}
	}
	for my $sql ('DELETE FROM mq.q_%s', q{UPDATE mq.q_%s SET ready_at = now() + interval '1 hour'}, 'UPDATE mq.q_%s SET ready_at = now(), priority = 3')
	{
		$q = new_queue();
		$third->query_safe(enqueue($q, 'soon', q{deliver_at => now() + interval '0.2 s'}));
		counted($q);
		commit_late(sprintf($sql, $q) . q{ WHERE body = '"soon"'});
		time_passes($q);
		go_on();
		agree($q, sprintf($sql, 'q') . ' of a message that would have come due');
	}

	# a nack: the lease keeps others away until its callback
	$q = new_queue();
	$third->query_safe(enqueue($q, 'back'));
	take_mine($q);
	commit_late("SELECT mq.nack('$q', id, receipt, delay => '0') FROM mine");
	is(take($q), '', 'a nacked message is not delivered before the callback');
	counted($q);
	go_on();
	agree($q, '... nacked');
	is(take($q), 'back', '... but after it');
	for my $sql (q{UPDATE mq.q_%s SET body = '"y"'}, 'UPDATE mq.q_%s SET ready_at = now()', 'DELETE FROM mq.q_%s')
	{
		$q = new_queue();
		$third->query_safe(enqueue($q, 'x'));
		take_mine($q);
		commit_late("SELECT mq.nack('$q', id, receipt, delay => '1 hour') FROM mine");
		$third->query_safe(sprintf($sql, $q) . q{ WHERE body = '"x"'});
		go_on();
		agree($q, sprintf($sql, 'q') . ' of a nacked message, told before the nack');
	}
	$q = new_queue();
	$third->query_safe(enqueue($q, 'x'));
	take_mine($q);
	commit_late("UPDATE mq.q_$q SET ready_at = clock_timestamp() WHERE body = '\"x\"'; SELECT mq.nack('$q', id, receipt, delay => '1 hour') FROM mine");
	$third->query_safe(enqueue($q, 'next', $NOW));
	counted($q);
	go_on();
	agree($q, 'moved and nacked in one transaction, counted before its callback');

	# all rows are counted anew between a nack and its callback
	$q = new_queue();
	$third->query_safe(enqueue($q, 'x'));
	take_mine($q);
	$third->query_safe(enqueue($q, 'other', q{delay => '2 hours'}));
	$third->query_safe("BEGIN; UPDATE mq.q_$q SET priority = 2 WHERE body = '\"other\"'; PREPARE TRANSACTION 'p'");
	commit_late("SELECT mq.nack('$q', id, receipt, delay => '1 hour') FROM mine");
	$third->query_safe("COMMIT PREPARED 'p'");
	$node->poll_query_until('postgres', "SELECT NOT exact FROM mq.stats WHERE queue = '$q'") or die 'the prepared transaction is not met';
	$node->poll_query_until('postgres', "SELECT exact FROM mq.stats WHERE queue = '$q'") or die 'the rows are not counted';
	go_on();
	agree($q, 'the rows are counted anew between a nack and its callback');
	return;
}

$other->query_safe('CREATE TABLE mine (id int8, receipt int8)');
foreach my $with (1, 0)
{
	$far = $with;
	cases();
}

# An ack of the first message of a key: the next one waits for the callback.
{
	my $q = new_queue(ordered => 'true');

	$third->query_safe("SELECT mq.enqueue('$q', '\"one\"', key => 'k'); SELECT mq.enqueue('$q', '\"two\"', key => 'k')");
	take_mine($q);
	commit_late("SELECT mq.ack('$q', id, receipt) FROM mine");
	my $got = take($q);
	go_on();
	is("$got" . take($q), 'two', 'the next message of a key comes once its predecessor is acked');
	agree($q, '... ordered');
}

# The message before it of the same key is new, and its callback is late.
{
	my $q = new_queue(ordered => 'true');

	commit_late("SELECT mq.enqueue('$q', '\"one\"', key => 'k')");
	$third->query_safe("SELECT mq.enqueue('$q', '\"two\"', key => 'k')");
	is(take($q), 'one', 'a message of a key does not pass one whose callback is late');
	go_on();
	is(take($q), '', '... it waits for its turn');
	settle($q, 'ack');
	is(take($q), 'two', '... and comes then');
	agree($q, '... ordered');
}

$_->quit for $late, $other, $third;
$node->stop;
done_testing();

# The worker is there in every database that has the extension, is gone where it
# has not, stands in nobody's way and comes back when it is killed.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('main', extension => 0);

sub worker_pid
{
	my ($db) = @_;
	return $node->safe_psql('postgres', <<"SQL");
SELECT pid FROM pg_stat_activity WHERE backend_type = 'mq worker' AND datname = '$db'
SQL
}

sub wait_no_worker
{
	my ($db, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return wait_until($node, <<"SQL", $name);
SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'mq worker' AND datname = '$db')
SQL
}

my $launchers =
  q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'mq launcher'};

wait_until($node, $launchers, 'one launcher runs');
is(worker_pid('postgres'), '', 'no worker without the extension');

$node->safe_psql('postgres', 'CREATE EXTENSION mq');
wait_for_worker($node);

# A database that gets the extension later, and clones of it.
$node->safe_psql('postgres', 'CREATE DATABASE one');
$node->safe_psql('one', 'CREATE EXTENSION mq');
wait_for_worker($node, 'one');
is( error_of($node, 'CREATE DATABASE two TEMPLATE one'),
	'', 'CREATE DATABASE … TEMPLATE is not blocked by the worker');
wait_for_worker($node, 'two', 'a clone has its worker');
wait_for_worker($node, 'one', 'the original has its worker again');
is( error_of($node, 'ALTER DATABASE two RENAME TO three'),
	'', 'ALTER DATABASE … RENAME is not blocked by the worker');
wait_for_worker($node, 'three', 'a renamed database has its worker');
is( error_of($node, <<'SQL'),
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE elsewhere LOCATION '';
ALTER DATABASE three SET TABLESPACE elsewhere;
SQL
	'', 'ALTER DATABASE … SET TABLESPACE is not blocked by the worker');
wait_for_worker($node, 'three', 'a moved database has its worker');
is(error_of($node, 'DROP DATABASE three'), '', 'DROP DATABASE is not blocked');
wait_no_worker('three', 'a dropped database has no worker');

# A refused command costs the database its worker for a moment only.
my $busy = session($node, 'one');
backend_pid($busy);
is(error_of($node, 'DROP DATABASE one'),
	'55006', 'DROP DATABASE is refused because of a client');
$busy->quit;
wait_for_worker($node, 'one', 'after a refused DROP DATABASE the worker is back');

# Many in a row: no race with a worker that is just starting.
my @failed;
for my $n (1 .. 5)
{
	$node->safe_psql('postgres', 'CREATE DATABASE brief TEMPLATE one');
	$node->poll_query_until('postgres', <<'SQL')
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'mq worker' AND datname = 'brief')
SQL
	  if $n % 2;
	my $state = error_of($node, 'DROP DATABASE brief');
	push @failed, "round $n: $state" if $state ne '';
	$node->safe_psql('postgres', 'DROP DATABASE IF EXISTS brief WITH (FORCE)');
}
is("@failed", '', 'databases created and dropped in a row');

# Templates have no worker, what is made from them has.
$node->safe_psql('template1', 'CREATE EXTENSION mq');
is(error_of($node, 'CREATE DATABASE four'), '', 'CREATE DATABASE from template1');
wait_for_worker($node, 'four', 'a database made from template1 has its worker');
is(worker_pid('template1'), '', 'a template has none');

# DROP EXTENSION.
$node->safe_psql('one', 'BEGIN; DROP EXTENSION mq; ROLLBACK');
wait_for_worker($node, 'one', 'DROP EXTENSION rolled back keeps the worker');
$node->safe_psql('one', q{SELECT mq.create_queue('q'); SELECT mq.enqueue('q', '1')});
is(error_of($node, 'DROP EXTENSION mq', 'one'),
	'2BP01', 'DROP EXTENSION refuses while there are queues');
wait_for_worker($node, 'one', 'a refused DROP EXTENSION keeps the worker');
is(error_of($node, 'DROP EXTENSION mq CASCADE', 'one'), '', 'DROP EXTENSION CASCADE');
wait_no_worker('one', 'the worker is gone after DROP EXTENSION');
my $maker = session($node, 'one');
$maker->query_safe('BEGIN; CREATE EXTENSION mq');
wait_no_worker('one', 'no worker before CREATE EXTENSION commits');
$maker->query_safe('COMMIT');
$maker->quit;
wait_for_worker($node, 'one', 'and back after CREATE EXTENSION');

# Workers do not pin the horizon.
is( $node->safe_psql('postgres', <<'SQL'), 0, 'no worker holds a snapshot when idle');
SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'mq %' AND backend_xmin IS NOT NULL
SQL

# SIGTERM: another one takes over, and leases from before are looked after.
$node->safe_psql('postgres', q{
SELECT mq.create_queue('q', lease => '1 second', backoff => '0');
SELECT mq.enqueue('q', '1'); SELECT mq.dequeue('q')});
my $pid = worker_pid('postgres');
is($node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)"),
	't', 'the worker is terminated');
wait_until($node, <<"SQL", 'another worker takes over');
SELECT EXISTS (SELECT FROM pg_stat_activity
               WHERE backend_type = 'mq worker' AND datname = 'postgres' AND pid <> $pid)
SQL
wait_until($node, q{SELECT attempts >= 1 FROM mq.q_q},
	'it finds a lease from before that has ended');

$pid = $node->safe_psql('postgres',
	q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'mq launcher'});
kill 'TERM', $pid;
wait_until($node, <<"SQL", 'another launcher takes over');
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'mq launcher' AND pid <> $pid)
SQL
$node->safe_psql('postgres', 'CREATE DATABASE five');
wait_for_worker($node, 'five', 'the new launcher starts workers');
wait_for_worker($node, 'postgres', 'and there is one a database still');

# SIGKILL: the server recovers, and all of them are back.
my $offset = -s $node->logfile;
kill 'KILL', worker_pid('postgres');
wait_for_recovery($node, $offset);
wait_for_worker($node, $_, "after a crash of the worker: $_") for 'postgres', 'one', 'four', 'five';
wait_until($node, $launchers, 'after a crash of the worker: one launcher');

# Shutdown waits neither for workers nor for waiting consumers.
my $waiter = session($node);
$pid = backend_pid($waiter);
start_query($waiter, q{CALL mq.wait('q_dead', '10 minutes')});
wait_asleep($node, $pid);
cmp_ok(elapsed { $node->stop('fast') }, '<', 20, 'a fast shutdown is fast');
dead_session($waiter);
$node->start;
wait_for_worker($node);
wait_for_worker($node, 'five');
cmp_ok(elapsed { $node->stop('smart') }, '<', 20,
	'a smart shutdown does not wait for workers');

done_testing();

# Ordered queues over a clean restart, a crash and prepared transactions: a key
# stays held as long as its message is, and nothing is overtaken or forgotten.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('main');

$node->safe_psql('postgres', q{
SELECT mq.create_queue('o', ordered => true, lease => '1 hour', backoff => '0');
CREATE FUNCTION got(n integer DEFAULT 10) RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT coalesce(string_agg(m.body #>> '{}', ' '), '') FROM mq.dequeue('o', n) m $$;
CREATE FUNCTION settle(verb text, what text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	yes boolean;
BEGIN
	EXECUTE format('SELECT mq.%s(''o'', f.id, f.receipt) FROM mq.in_flight f JOIN mq.q_o q USING (id) '
				   'WHERE f.queue = ''o'' AND q.body = to_jsonb($1)', verb) INTO yes USING what;
	RETURN yes;
END $$;
SELECT mq.enqueue('o', to_jsonb(k || i), key => k) FROM generate_series(1, 6) i, unnest('{a,b,c}'::text[]) k ORDER BY i, k;
});

sub sql { return $node->safe_psql('postgres', $_[0]); }

# a is leased, b waits for its retry in its row, c was released
is(sql('SELECT got()'), 'a1 b1 c1', 'one of each key');
is(sql(q{SELECT mq.nack('o', f.id, f.receipt, delay => '1 hour') FROM mq.in_flight f JOIN mq.q_o q USING (id) WHERE q.key = 'b'}),
	't', 'b waits for its backoff');
is(sql(q{SELECT settle('ack', 'c1')}), 't', 'c goes on');
is(sql('SELECT got()'), 'c2', '... alone');
is(sql(q{SELECT settle('release', 'c2')}), 't', 'c is released');

for my $how (qw(fast immediate))
{
	stop_and_start($node, $how);
	# a crash gives what was in flight back at once, an attempt counted
	is(sql(q{SELECT string_agg(body #>> '{}' || ' ' || attempt, ', ' ORDER BY id) FROM mq.dequeue('o', 10)}),
		$how eq 'fast' ? 'c2 1' : 'a1 2, c2 2', "after a restart ($how) held and waiting keys are not overtaken");
	is(sql('SELECT got()'), '', '... and each is held');
}
is(sql(q{SELECT settle('ack', 'a1')}), 't', 'a is acknowledged');
is(sql('SELECT got()'), 'a2', '... and goes on');
sql(q{UPDATE mq.q_o SET ready_at = NULL WHERE body = '"b1"'});
is(sql('SELECT got()'), 'b1', 'b is called back');

# Again, with c back in its place before.
is(sql(q{SELECT settle('release', 'c2')}), 't', 'c is released');
stop_and_start($node, 'immediate');
is(join(' ', sort split / /, sql('SELECT got()')), 'a2 b1 c2', 'after another crash: each key is where it was');

# Prepared transactions hold the key until they end.
sql(q{BEGIN; SELECT settle('ack', 'a2'); PREPARE TRANSACTION 'p1'});
sql(q{BEGIN; SELECT settle('nack', 'b1'); PREPARE TRANSACTION 'p2'});
sql(q{BEGIN; SELECT settle('release', 'c2'); PREPARE TRANSACTION 'p3'});
is(sql('SELECT got()'), '', 'prepared ack, nack and release: nothing comes');
sql(q{COMMIT PREPARED 'p1'; });
is(sql(q{SELECT m.body #>> '{}' FROM mq.dequeue('o', wait => '10 s') m}), 'a3', 'the ack is committed: the next of the key');
sql(q{ROLLBACK PREPARED 'p2'});
sql(q{COMMIT PREPARED 'p3'});
is(sql(q{SELECT m.body #>> '{}' FROM mq.dequeue('o', wait => '10 s') m}), 'c2', 'the release is committed: the same again');
is(sql(q{SELECT settle('ack', 'b1')}), 't', 'the nack is rolled back: it is leased as before');
is(sql('SELECT got()'), 'b2', '... and acknowledged makes way');
sql(q{BEGIN; SELECT settle('nack', 'b2'); PREPARE TRANSACTION 'p4'});
sql(q{COMMIT PREPARED 'p4'});
is(sql(q{SELECT m.body #>> '{}' FROM mq.dequeue('o', wait => '10 s') m}), 'b2', 'a prepared nack: the failed one again');

# Dequeued in a prepared transaction.
is(sql(q{SELECT settle('ack', 'b2')}), 't', 'acknowledged');
sql(q{BEGIN; SELECT got(1); PREPARE TRANSACTION 'p5'});
is(sql('SELECT got()'), '', 'a prepared dequeue holds its key');
sql(q{ROLLBACK PREPARED 'p5'});
is(sql(q{SELECT m.body #>> '{}' || m.attempt FROM mq.dequeue('o', wait => '10 s') m}), 'b32', '... rolled back it is delivered again, before the next');

# Over a restart: what is next of a is deleted, and the first of d enqueued, in a prepared transaction.
sql(q{BEGIN; DELETE FROM mq.q_o WHERE body = '"a4"'; SELECT mq.enqueue('o', '"d1"', key => 'd'); PREPARE TRANSACTION 'p6'});
sql(q{BEGIN; SELECT settle('ack', 'c2'); PREPARE TRANSACTION 'p7'});
stop_and_start($node, 'fast');
is(sql(q{SELECT settle('ack', 'a3')}), 't', 'a receipt of before the restart');
is(sql('SELECT got()'), '', 'what a prepared transaction deletes is not overtaken');
sql(q{COMMIT PREPARED 'p6'});
sql(q{COMMIT PREPARED 'p7'});
my %got;
for (1 .. 50)
{
	$got{$_} = 1 for split / /, sql('SELECT got()');
	last if keys %got >= 3;
	select(undef, undef, undef, 0.1);
}
is(join(' ', sort keys %got), 'a5 c3 d1', '... then all keys go on');

# alter_queue in a prepared transaction
sql(q{BEGIN; SELECT mq.alter_queue('o', ordered => false); PREPARE TRANSACTION 'p8'});
is(sql('SELECT got()'), '', 'still ordered');
sql(q{COMMIT PREPARED 'p8'});
%got = ();
for (1 .. 50)
{
	$got{$_} = 1 for split / /, sql('SELECT got(100)');
	last if keys %got >= 7;
	select(undef, undef, undef, 0.1);
}
is(join(' ', sort keys %got), 'a6 b4 b5 b6 c4 c5 c6', 'ordered no more: all that was behind');

$node->stop;
done_testing();

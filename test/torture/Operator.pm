# What an operator does to the messages, each in a transaction of its own that stands
# in the ledger: it is told what to say there, gets a session, and closes it.

package Operator;

use strict;
use warnings;

use Ledger;

my $token = "coalesce(body, convert_from(data, 'UTF8')::jsonb)->>'t'";

# SQL for a message's token.
sub token { return $token }

# Removes messages: $work is given the session, in the transaction, and says which
# tokens are gone.
sub remove
{
	my ($ledger, $s, $tx, $verb, $q, $work) = @_;
	my ($t0, @gone);
	$ledger->put('work', tx => $tx, w => 1, how => [$verb]);
	my $did = eval {
		$s->q('BEGIN');
		$s->q("INSERT INTO witness VALUES ('$tx')");
		$t0 = Ledger::now();
		@gone = $work->($s);
		$ledger->put('removed', tx => $tx, verb => $verb, q => $q, t0 => $t0, m => \@gone);
		1;
	};
	my $o = 'rolledback';
	$t0 = Ledger::now();
	if ($did)
	{
		$o = eval { $s->q('COMMIT'); 1 } ? 'committed' : $@->{lost} ? 'unknown' : 'rolledback';
	}
	$ledger->put('outcome', tx => $tx, o => $o, t0 => $t0);
	eval { $s->close } if $s->{alive};
	return $o eq 'committed' && @gone > 0;
}

# Replays what keep's archive has from a time on.  Each copy gets a token of its own,
# so that its way can be followed.
sub replay
{
	my ($ledger, $s, $tx, $since) = @_;
	my $o = 'rolledback';
	my (@new, @copies);
	my $did = eval {
		$s->q('BEGIN ISOLATION LEVEL REPEATABLE READ');
		my $range = "'$since', clock_timestamp() + '1 year'";
		my @from = map { $_->[0] } @{ $s->q("SELECT $token FROM mq.a_keep WHERE acked_at >= '$since'") };
		my %there = map { $_->[0] => 1 } @{ $s->q('SELECT id FROM mq.q_keep') };
		my $said = $s->q("SELECT mq.replay('keep', $range)")->[0][0];
		@copies = grep { !$there{ $_->[0] } } @{ $s->q("SELECT id, $token, headers->>'g' FROM mq.q_keep ORDER BY id") };
		$ledger->put('replayed', q => 'keep', said => $said + 0, from => \@from, copies => [ map { $_->[1] } @copies ]);
		for my $c (@copies)
		{
			push @new, "$tx-$c->[0]";
			$s->q(qq{UPDATE mq.q_keep SET body = '{"t": "$new[-1]"}', data = NULL WHERE id = $c->[0]});
		}
		$s->q("INSERT INTO witness VALUES ('$tx')");
		1;
	};
	my $t0 = Ledger::now();
	if ($did)
	{
		$ledger->put('intent', tx => $tx, w => 1, how => ['replay'], m => [ map { [ $new[$_], 'keep', 0, 0, { g => $copies[$_][2] } ] } 0 .. $#new ]);
		$t0 = Ledger::now();
		$o = eval { $s->q('COMMIT'); 1 } ? 'committed' : $@->{lost} ? 'unknown' : 'rolledback';
		$ledger->put('outcome', tx => $tx, o => $o, t0 => $t0);
	}
	eval { $s->close } if $s->{alive};
	return $o eq 'committed' && @new > 0;
}

1;

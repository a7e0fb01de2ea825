# Helpers of the failover tests: clients that write down what they mean to do
# and what came of it, and what they are held against.
#
# The clients are processes of their own, with sessions of an ordinary driver.
# They reach the server by one address, a socket that is moved to the new
# primary.  Their ledgers have the form that test/torture/check judges.
# Besides, each transaction's xid stands there, so that the WAL tells where it
# was committed: then what must have become of each message is known exactly.

package Failover;

use strict;
use warnings;

use Exporter 'import';
use FindBin;
use lib "$FindBin::RealBin/../torture";
use JSON::PP;
use Ledger;
use PostgreSQL::Test::Utils ();
use POSIX qw(WNOHANG);
use Test::More;
use Time::HiRes qw(sleep);

our @EXPORT = qw(
  address schema load_start load_stop drain quiet note_down
  final judged commits lsn_number switch_point accounted transactions receipts
  stop_process continue_process kill_server await sync_waiting);

my $token = "body->>'t'";

# ---------------------------------------------------------------- clients

# The server clients find under the test's address from now on.
sub address
{
	my ($dir, $node) = @_;

	mkdir "$dir/$_" for '', 'socket', 'ledger';
	my $link = "$dir/socket/.s.PGSQL.5432";
	symlink $node->host . '/.s.PGSQL.' . $node->port, "$link.new" or die "$link: $!";
	rename "$link.new", $link or die "$link: $!";
	return;
}

# Two queues that everybody uses and one that only producers do.
sub schema
{
	my ($node) = @_;

	$node->safe_psql('postgres', join ';', q{
CREATE TABLE witness (tx text);
CREATE TABLE effect (token text, tx text)}, map
		qq{SELECT mq.create_queue('$_', lease => '1 hour', backoff => '0', max_attempts => 0)},
		qw(a b quiet));
	return;
}

my %child;

# A test that dies leaves no client behind.
my $self = $$;
END { if ($$ == $self) { my $status = $?; kill 'KILL', keys %child; $? = $status } }

sub spawn
{
	my ($dir, $name, $work) = @_;
	my $pid = fork // die "fork: $!";

	if ($pid == 0)
	{
		# none of the test's own exit is ours
		my $ok = eval {
			open STDERR, '>>', "$dir/stderr" or die;
			srand(1000 + ord($name) * 10 + ord(substr $name, 1));
			$work->(Failover::Client->new($dir, $name));
			1;
		};
		print STDERR "$name: ", ref $@ ? $@->{text} : $@, "\n" if !$ok;
		POSIX::_exit($ok ? 0 : 1);
	}
	$child{$pid} = $name;
	return $pid;
}

# Starts so many of each role.  known: each ack is part of a transaction whose
# xid stands in the ledger.
sub load_start
{
	my ($dir, %n) = @_;

	unlink "$dir/stop";
	my @pids;
	for my $role (qw(producer consumer))
	{
		push @pids, map {
			spawn($dir, substr($role, 0, 1) . $_, sub { $_[0]{known} = $n{known}; $_[0]->work($role) })
		} 1 .. $n{$role};
	}
	return @pids;
}

# One test point: all of them end, as they should.
sub ended
{
	my ($name, @pids) = @_;
	my @bad;
	local $Test::Builder::Level = $Test::Builder::Level + 2;

	for my $pid (@pids)
	{
		if (!await(30, sub { waitpid($pid, WNOHANG) == $pid }))
		{
			push @bad, "$child{$pid} does not end";
			kill 'KILL', $pid;
			waitpid $pid, 0;
		}
		elsif ($?)
		{
			push @bad, "$child{$pid} ended with $?";
		}
		delete $child{$pid};
	}
	return is(join(', ', @bad), '', $name);
}

sub touch
{
	my ($file) = @_;
	open my $f, '>', $file or die "$file: $!";
	close $f;
	return;
}

sub load_stop
{
	my ($dir, @pids) = @_;

	touch("$dir/stop");
	return ended('the clients end', @pids) || diag(PostgreSQL::Test::Utils::slurp_file("$dir/stderr"));
}

# Consumes all there is.
sub drain
{
	my ($dir) = @_;

	return ended('all is consumed', spawn($dir, 'drain', sub { $_[0]->drain }))
	  || diag(PostgreSQL::Test::Utils::slurp_file("$dir/stderr"));
}

# From now on producers use the queue nobody consumes; returns when each does.
sub quiet
{
	my ($dir, $node) = @_;

	touch("$dir/quiet");
	return $node->poll_query_until('postgres', qq{
SELECT count(DISTINCT split_part($token, '-', 1)) = @{[ scalar grep { /^p/ } values %child ]} FROM mq.q_quiet});
}

# What the test itself does.
sub note_down
{
	my ($dir, $k, %rec) = @_;
	Ledger->new("$dir/ledger/driver")->put($k, %rec);
	return;
}

# -------------------------------------------------------------- processes

# True at last; false if it is not within so many seconds.
sub await
{
	my ($seconds, $true) = @_;
	my $end = Ledger::now() + $seconds;

	until ($true->())
	{
		return 0 if Ledger::now() > $end;
		sleep(0.01);
	}
	return 1;
}

sub status
{
	my ($pid) = @_;
	open my $f, '<', "/proc/$pid/stat" or return {};
	my $line = <$f> // '';
	my ($state, $parent) = $line =~ /^\d+ \(.*\) (\S) (\d+)/ or return {};
	return { state => $state, parent => $parent };
}

sub stop_process
{
	my ($pid) = @_;
	kill 'STOP', $pid or die "no process $pid";
	await(10, sub { (status($pid)->{state} // 'T') eq 'T' }) or die "process $pid does not stop";
	return $pid;
}

sub continue_process { my ($pid) = @_; kill 'CONT', $pid or die "no process $pid"; return }

# SIGKILL to the postmaster alone; its children find out by themselves, except
# those that are stopped.  Returns when none is left.
sub kill_server
{
	my ($node, @stopped) = @_;
	my $postmaster = $node->{_pid};

	# a stopped one starts nobody new
	stop_process($postmaster);
	my @children = grep { (status($_)->{parent} // 0) == $postmaster } map { m{(\d+)} } glob '/proc/[0-9]*';
	$node->kill9;
	kill 'KILL', @stopped if @stopped;
	await(30, sub { !kill(0, $postmaster) && !grep { (status($_)->{state} // 'Z') ne 'Z' } @children })
	  or die 'the old server does not go';
	return;
}

# How many clients wait for the standby to answer a COMMIT.
sub sync_waiting
{
	my ($node) = @_;
	return split /\n/, $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'});
}

# ------------------------------------------------------------- judgement

sub final
{
	my ($dir, $node) = @_;
	my $rows = sub {
		my ($sql) = @_;
		return decode_json($node->safe_psql('postgres', "SELECT coalesce(json_agg(r), '[]') FROM ($sql) x (r)"));
	};
	my %final = (max_attempts => {});

	local $PostgreSQL::Test::Utils::timeout_default = 30;

	$node->poll_query_until('postgres', q{
SELECT bool_and(exact AND ready + delayed + in_flight = 0) FROM mq.stats WHERE queue IN ('a', 'b', 'quiet')});
	$final{stats} = $rows->(q{
SELECT json_build_array(queue, ready, delayed, in_flight, exact) FROM mq.stats
WHERE queue IN ('a', 'b', 'quiet') AND (ready <> 0 OR delayed <> 0 OR in_flight <> 0 OR NOT exact)});
	$final{witness} = $rows->('SELECT tx FROM witness');
	$final{effects} = $rows->('SELECT json_build_array(token, tx) FROM effect');
	for my $q (qw(a b quiet))
	{
		$final{remaining}{$q} = $rows->("SELECT json_build_array($token, attempts) FROM mq.q_$q");
		$final{dead}{$q} = $rows->("SELECT json_build_array($token, '', '', '') FROM mq.q_${q}_dead");
	}
	open my $f, '>', "$dir/final.json" or die $!;
	print $f encode_json(\%final);
	close $f or die $!;
	return \%final;
}

# One test point: the judge of the torture finds nothing.  Returns the figures.
sub judged
{
	my ($dir, $name) = @_;
	my $out = qx{'$^X' '$FindBin::RealBin/../torture/check' '$dir' 2>&1};
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ok($? == 0, $name) or diag($out);
	my %n = $out =~ /(in|acked|unsure|unknown|again|deliveries|rolled back) (\d+)/g;
	note($out);
	return \%n;
}

sub records
{
	my ($dir) = @_;
	my @rec;
	for my $file (glob "$dir/ledger/*")
	{
		push @rec, map { decode_json($_) } split /\n/, PostgreSQL::Test::Utils::slurp_file($file);
	}
	return sort { $a->{t} <=> $b->{t} } @rec;
}

sub lsn_number
{
	my ($high, $low) = split m{/}, $_[0];
	return hex($high) * 2**32 + hex $low;
}

# Where in a server's WAL each transaction was committed, by xid.
sub commits
{
	my ($node, $from) = @_;
	my %at;
	my $out = qx{pg_waldump -p '@{[ $node->data_dir ]}/pg_wal' -s $from -r Transaction 2>/dev/null};

	while ($out =~ /tx: +(\d+), lsn: (\S+), .* desc: COMMIT /g)
	{
		$at{$1} = lsn_number($2);
	}
	return \%at;
}

# Where a promoted server left the timeline of the old primary.
sub switch_point
{
	my ($node) = @_;
	my $file = (sort glob $node->data_dir . '/pg_wal/*.history')[-1];
	my ($lsn) = PostgreSQL::Test::Utils::slurp_file($file) =~ /^\d+\t(\S+)\t[^\n]*\n*\z/m;
	return lsn_number($lsn);
}

# Holds deliveries of a new server against the WAL of the old one.
# What was committed before the switch is there, what came after is not: a
# message is delivered on the new server if and only if its enqueue came before
# and no ack of it did.
sub accounted
{
	my ($dir, $old, $new, $commits, $switch) = @_;
	my (%xid, %outcome, %message, %acks, %got, %tokens_of, @wrong);
	my %n = map { $_ => 0 } qw(survived lost again acked committed);

	for my $r (records($dir))
	{
		my $k = $r->{k};
		if ($k eq 'xid') { $xid{ $r->{tx} } = $r->{x} }
		elsif ($k eq 'outcome') { $outcome{ $r->{tx} } = $r->{o} }
		elsif ($k eq 'intent') { $message{ $_->[0] } = { tx => $r->{tx}, undo => $_->[2] } for @{ $r->{m} } }
		elsif ($k eq 'got')
		{
			for my $i (0 .. $#{ $r->{m} })
			{
				my $t = $r->{m}[$i][0];
				$tokens_of{"$r->{n}:$i"} = $t;
				$got{$t}{ $r->{on} }++;
				push @{ $acks{$t} }, $r->{tx} if $r->{auto};
			}
		}
		elsif ($k eq 'settle' && $r->{verb} eq 'ack')
		{
			push @{ $acks{ $tokens_of{$_} } }, $r->{tx} for @{ $r->{m} };
		}
	}
	# where in the old server's WAL; -1 for what others did
	my $at = sub {
		my ($tx) = @_;
		return undef if !defined $tx || !defined $xid{$tx};
		my ($on, $x) = @{ $xid{$tx} };
		return $on == $old->port ? $commits->{$x} : -1;
	};
	for my $tx (keys %outcome)
	{
		next unless defined $xid{$tx} && $xid{$tx}[0] == $old->port;
		my $committed = defined $at->($tx);
		my $o = $outcome{$tx};
		$n{committed}++ if $committed;
		push @wrong, "$tx is $o, the WAL says otherwise"
		  if ($o eq 'committed' && !$committed) || ($o eq 'rolledback' && $committed);
	}
	for my $t (sort keys %message)
	{
		my $m = $message{$t};
		my $e = $m->{undo} ? undef : $at->($m->{tx});
		next if defined $e && $e < 0;
		my $again = $got{$t}{ $new->port } // 0;
		my @acks = grep { defined && $_ >= 0 } map { $at->($_) } @{ $acks{$t} // [] };
		my $acked = grep { $_ < $switch } @acks;

		if (!defined $e) { push @wrong, "$t was never committed, and delivered" if $again }
		elsif ($e >= $switch)
		{
			$n{lost}++;
			push @wrong, "$t did not reach the new server, and was delivered there" if $again;
		}
		elsif ($acked)
		{
			$n{acked}++;
			push @wrong, "$t was acked before the switch, and delivered again" if $again;
		}
		else
		{
			$n{survived}++;
			$n{again}++ if @acks;
			push @wrong, "$t reached the new server, and was never delivered" unless $again;
		}
	}
	return (join("\n", @wrong), \%n);
}

# All transactions of one server that got as far as an xid: { tx, xid, o }.
sub transactions
{
	my ($dir, $node) = @_;
	my (%tx, %o);
	for my $r (records($dir))
	{
		$tx{ $r->{tx} } = $r->{x}[1] if $r->{k} eq 'xid' && $r->{x}[0] == $node->port;
		$o{ $r->{tx} } = $r->{o} if $r->{k} eq 'outcome';
	}
	return map { { tx => $_, xid => $tx{$_}, o => $o{$_} // 'unknown' } } sort keys %tx;
}

# All deliveries of one server: [queue, id, receipt, token].
sub receipts
{
	my ($dir, $node) = @_;
	my @all;
	for my $r (grep { $_->{k} eq 'got' && $_->{on} == $node->port } records($dir))
	{
		push @all, map { [ $r->{q}, $_->[1], $_->[2], $_->[0] ] } @{ $r->{m} };
	}
	return @all;
}

# ----------------------------------------------------------------- client
package Failover::Client;

use strict;
use warnings;

use Time::HiRes qw(sleep);

sub new
{
	my ($class, $dir, $name) = @_;
	return bless { dir => $dir, name => $name, ledger => Ledger->new("$dir/ledger/$name"),
		tx => 0, token => 0, ask => 0, settle => 0 }, $class;
}

sub chance { return rand() < $_[0] }
sub pick { return $_[ rand @_ ] }

my $warned = '';

# Runs one statement; the server may be another than for the one before.
sub q { my ($self, $sql) = @_; $warned = ''; return $self->{s}->q($sql) }

# Ended by a warning: nobody knows whether the standby has it.
sub unsure { return $warned =~ /canceling (the )?wait for synchronous replication/ }

sub connected
{
	my ($self) = @_;
	return 1 if $self->{s} && $self->{s}{alive};
	$self->{s} = eval { Session->new($self->{ledger}, $self->{name}, "$self->{dir}/socket", client_min_messages => 'warning') };
	if (!$self->{s})
	{
		sleep(0.02);
		return 0;
	}
	$self->{s}{dbh}{PrintWarn} = 1;
	$SIG{__WARN__} = sub { $warned .= $_[0] };
	$self->{on} = eval { $self->q("SELECT current_setting('port')")->[0][0] } or return 0;
	return 1;
}

# A transaction: its xid stands in the ledger before it can commit, and a row
# says in the database that it did.
sub transaction
{
	my ($self, $tx, $end, $work) = @_;
	my $ledger = $self->{ledger};
	my $ok = eval {
		$self->q('BEGIN');
		my $xid = $self->q('SELECT pg_current_xact_id()')->[0][0];
		$ledger->put('xid', tx => $tx, x => [ $self->{on} + 0, $xid + 0 ]);
		$self->q("INSERT INTO witness VALUES ('$tx')");
		$work->();
		1;
	};
	my $e = $@;
	die $e if !$ok && !ref $e;
	my $t0 = Ledger::now();
	my $o = 'rolledback';
	if ($ok && $end eq 'commit')
	{
		my $did = eval { $self->q('COMMIT'); 1 };
		die $@ if !$did && !ref $@;
		$o = $did ? (unsure() ? 'unknown' : 'committed') : $@->{lost} ? 'unknown' : 'rolledback';
	}
	elsif ($self->{s}{alive})
	{
		eval { $self->q('ROLLBACK') };
	}
	$ledger->put('outcome', tx => $tx, o => $o, t0 => $ok ? $t0 : $e->{t0});
	return;
}

sub name_tx { my ($self) = @_; return "$self->{name}/" . ++$self->{tx} }

sub produce
{
	my ($self) = @_;
	my $tx = $self->name_tx;
	my @steps;
	for (1 .. 1 + int rand 2)
	{
		my $queue = -e "$self->{dir}/quiet" ? 'quiet' : pick('a', 'b');
		push @steps, [ chance(0.1) ? 1 : 0, $queue, map { "$self->{name}-" . ++$self->{token} } 1 .. pick(1, 1, 4) ];
	}
	$self->{ledger}->put('intent', tx => $tx, w => 1,
		m => [ map { my ($undo, $q, @t) = @$_; map { [ $_, $q, $undo ] } @t } @steps ]);
	$self->transaction($tx, chance(0.1) ? 'rollback' : 'commit', sub {
		for my $step (@steps)
		{
			my ($undo, $queue, @t) = @$step;
			my $priority = chance(0.2) ? ', priority => ' . int rand 10 : '';
			my @body = map { qq('{"t":"$_"}') } @t;
			$self->q('SAVEPOINT p') if $undo;
			$self->q(@t > 1 ? "SELECT count(*) FROM mq.enqueue_batch('$queue', ARRAY[" . join(',', @body) . "]::jsonb[]$priority)"
				: "SELECT mq.enqueue('$queue', $body[0]$priority)");
			$self->q('ROLLBACK TO p') if $undo;
		}
	});
	return;
}

# Dequeues.  a: queue, max, mode (lease: a transaction of its own, or tx), tx, auto.
sub take
{
	my ($self, %a) = @_;
	my $n = "$self->{name}/" . ++$self->{ask};
	my $cols = "$token AS tok, id, receipt, attempt";
	my $from = "mq.dequeue('$a{queue}', $a{max}" . ($a{auto} ? ', auto_ack => true' : '') . ')';
	my $rows = $self->q($a{auto}
		? "WITH m AS (SELECT $cols FROM $from), e AS (INSERT INTO effect SELECT tok, '$a{tx}' FROM m) SELECT * FROM m"
		: "SELECT $cols FROM $from");
	my $i = 0;
	my @got = map { { d => "$n:" . $i++, tok => $_->[0], id => $_->[1], r => $_->[2], q => $a{queue} } } @$rows;
	$self->{ledger}->put('got', n => $n, s => $self->{s}{name}, q => $a{queue}, mode => $a{mode}, lease => 3600_000, tx => $a{tx},
		auto => $a{auto} ? 1 : 0, t0 => $self->{s}{t0}, on => $self->{on} + 0, m => $rows)
	  if @got;
	return @got;
}

# Settles deliveries of one queue, in transaction tx or as one of its own.
sub settle
{
	my ($self, $verb, $tx, $m, $extra) = @_;
	my $n = "$self->{name}/s" . ++$self->{settle};
	my $lists = 'ARRAY[' . join(',', map { $_->{id} } @$m) . ']::bigint[], ARRAY[' . join(',', map { $_->{r} } @$m) . ']::bigint[]';
	$extra //= '';
	$self->{ledger}->put('settle', n => $n, s => $self->{s}{name}, verb => $verb, tx => $tx, m => [ map { $_->{d} } @$m ]);
	my $t0 = Ledger::now();
	my @ok;
	my $did = eval {
		my $count = $self->q("SELECT mq.${verb}_batch('$m->[0]{q}', $lists$extra)")->[0][0];
		@ok = (($count == @$m ? 1 : $count == 0 ? 0 : undef)) x @$m;
		1;
	};
	my $e = $@;
	die $e if !$did && !ref $e;
	$self->{ledger}->put('settled', n => $n, ok => \@ok, t0 => $t0,
		o => $did && $tx ? 'tx' : $did ? (unsure() ? 'unknown' : 'committed') : !$tx && $e->{lost} ? 'unknown' : 'rolledback');
	die $e if !$did;
	return;
}

sub effects
{
	my ($self, $tx, @m) = @_;
	$self->q('INSERT INTO effect VALUES ' . join ', ', map { "('$_->{tok}', '$tx')" } @m);
	return;
}

sub consume
{
	my ($self) = @_;
	my $queue = pick('a', 'b');
	my $way = rand;
	my $end = chance(0.1) ? 'rollback' : 'commit';
	my %a = (queue => $queue, max => pick(1, 3, 8));
	my $got = 0;
	if ($way < 0.5)
	{
		my @m = $self->take(%a, mode => 'lease');
		$got = @m;
		if (!@m) { }
		elsif ($way < 0.05) { $self->settle(pick('nack', 'release'), undef, \@m) }
		elsif ($way < 0.15 && !$self->{known}) { $self->settle('ack', undef, \@m) }
		else
		{
			# effect and strict ack in one transaction; rolled back, it is given back
			my $tx = $self->name_tx;
			my $acked;
			$self->{ledger}->put('work', tx => $tx, w => 1);
			$self->transaction($tx, $end, sub {
				$self->effects($tx, @m);
				$self->settle('ack', $tx, \@m, ', strict => true');
				$acked = 1;
			});
			$self->settle('release', undef, \@m) if $end eq 'rollback' && $acked && $self->{s}{alive};
		}
	}
	else
	{
		my $tx = $self->name_tx;
		$self->{ledger}->put('work', tx => $tx, w => 1);
		$self->transaction($tx, $end, sub {
			my @m = $self->take(%a, mode => 'tx', tx => $tx, auto => $way < 0.75);
			$got = @m;
			return if !@m || $way < 0.75;
			$self->effects($tx, @m);
			$self->settle('ack', $tx, \@m);
		});
	}
	$self->q("CALL mq.wait('$queue', '100 ms')") if !$got && $self->{s}{alive};
	return;
}

sub work
{
	my ($self, $role) = @_;
	until (-e "$self->{dir}/stop")
	{
		$self->connected or next;
		my $ok = eval { $role eq 'producer' ? $self->produce : $self->consume; 1 };
		die $@ if !$ok && !ref $@;
	}
	$self->{s}->close if $self->{s} && $self->{s}{alive};
	return;
}

sub drain
{
	my ($self) = @_;
	my $end = Ledger::now() + 25;
	while (Ledger::now() < $end)
	{
		$self->connected or next;
		my $left = 0;
		for my $queue (qw(a b quiet))
		{
			my @m = $self->take(queue => $queue, max => 100, mode => 'lease');
			$self->settle('ack', undef, \@m) if @m;
			$left += $self->q("SELECT count(*) FROM mq.q_$queue")->[0][0];
		}
		return $self->{s}->close if !$left;
	}
	die { text => 'messages remain' };
}

1;

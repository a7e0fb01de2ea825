# One run: a fresh database, its sessions, and what they do; after each operation
# the model judges.
package Run;

use strict;
use warnings;

use DBI;
use DBD::Pg qw(:async);
use List::Util qw(max min first);
use Time::HiRes qw(time usleep);
use Clock;
use Model;
use Verbs;

my $MARGIN = 5;		# seconds in which nothing may come due while a statement runs
our $PATIENCE = 20;	# seconds of real time for what the worker has to do

sub connect_to
{
	my ($database, $name) = @_;
	my $dbh = DBI->connect("dbi:Pg:dbname=$database;application_name=$name", '', '',
		{ RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, pg_server_prepare => 0 });
	$dbh->do('SET client_min_messages = error');
	$dbh->do('SET statement_timeout = ' . 3000 * $PATIENCE);
	return $dbh;
}

sub _end_prepared
{
	my ($dbh) = @_;
	my $gids = $dbh->selectcol_arrayref('SELECT gid FROM pg_prepared_xacts WHERE database = current_database()');
	$dbh->do("ROLLBACK PREPARED '$_'") foreach @$gids;
}

my $maintenance;

# A fresh database.
sub new
{
	my ($class, %o) = @_;
	my $self = bless { %o, log => [], counts => {} }, $class;

	$maintenance //= connect_to('postgres', 'model');
	if ($maintenance->selectrow_array('SELECT 1 FROM pg_prepared_xacts WHERE database = ?', undef, $o{database}))
	{
		my $left = connect_to($o{database}, 'leftover');
		_end_prepared($left);
		$left->disconnect;
	}
	$maintenance->do(qq(DROP DATABASE IF EXISTS "$o{database}" WITH (FORCE)));
	$maintenance->do(qq(CREATE DATABASE "$o{database}"));
	$self->{admin} = connect_to($o{database}, 'admin');
	$self->{admin}->do('CREATE EXTENSION mq');
	$self->connect_session($_) foreach 1 .. $o{sessions};
	$self->{model} = Model->new(sub {
			my ($q, $m) = @_;
			my ($n) = $self->{admin}->selectrow_array('SELECT attempts FROM ' . table($q->{name}) . ' WHERE id = ?', undef, $m->{id});
			return !defined $n || $n >= $m->{attempts};
		});
	$self->{c} = {
		model => $self->{model}, deliveries => {}, order => [], busy => {}, last_receipt => 0, marks => [Clock::now()],
		rnd => $o{random}, clock => \&Clock::now };
	return $self;
}

sub connect_session
{
	my ($self, $s) = @_;
	$self->{s}{$s} = connect_to($self->{database}, "s$s");
	$self->{pid}{$s} = $self->{s}{$s}{pg_pid};
}

sub close
{
	my ($self) = @_;
	foreach my $s (sort keys %{ $self->{s} })
	{
		eval { $self->{s}{$s}->pg_cancel } if $self->{c}{busy}{$s};
		eval { $self->{s}{$s}->disconnect };
	}
	eval { _end_prepared($self->{admin}) };
	eval { $self->{admin}->disconnect };
}

# Runs statements, the last one's answer counts.
sub query
{
	my ($dbh, @sql) = @_;
	my %res;
	eval {
		foreach my $sql (@sql)
		{
			my $sth = $dbh->prepare($sql, { pg_direct => 1 });
			$res{n} = $sth->execute;
			$res{n} = 0 if $res{n} eq '0E0';
			$res{rows} = $sth->{NUM_OF_FIELDS} ? $sth->fetchall_arrayref : [];
			$sth->finish;
		}
		1;
	} or do {
		%res = (err => $dbh->state || 'XX000', text => $dbh->errstr // $@);
		$res{text} =~ s/\n.*//s;
	};
	return \%res;
}

sub wake_worker
{
	my ($self) = @_;
	for (1 .. 2000)
	{
		$self->{worker} //= $self->{admin}->selectrow_array(
			"SELECT pid FROM pg_stat_activity WHERE backend_type = 'mq worker' AND datname = current_database()");
		return if $self->{worker} && kill 'HUP', $self->{worker};
		$self->{worker} = undef;
		usleep 5000;
	}
	die "no worker\n";
}

# What happens by itself has happened until now.
sub pass
{
	my ($self) = @_;
	my $n = $self->{model}->pass(Clock::now());
	$self->wake if $n;
	return $n;
}

# Who waits for a time looks at the clock again.
sub wake
{
	my ($self) = @_;
	$self->wake_worker;
	kill 'HUP', $self->{pid}{$_} foreach keys %{ $self->{c}{busy} };
}

# Waits until those who wait do: what they work out from the clock is before it moves.
sub quiet
{
	my ($self) = @_;
	my $start = time;
	foreach my $s (sort keys %{ $self->{c}{busy} })
	{
		until ($self->{s}{$s}->pg_ready || $self->{admin}->selectrow_array(
			"SELECT 1 FROM pg_stat_activity WHERE pid = ? AND state = 'active' AND wait_event_type IN ('Extension', 'Lock')",
			undef, $self->{pid}{$s}))
		{
			die "session $s does not come to rest\n" if time - $start > $PATIENCE;
			usleep 200;
		}
	}
}

# The same, and nothing comes due in the next seconds.  Returns how much happened.
sub settle_time
{
	my ($self, $margin) = @_;
	my $passed = 0;
	my $n;
	do
	{
		my $moved = 0;
		while (my $until = $self->{model}->reached(Clock::now(), $margin // $MARGIN))
		{
			# who waits has what is his before time goes on: it may expire
			if (keys %{ $self->{c}{busy} })
			{
				$passed += $self->pass;
				$self->quiet;
				my $wrong = $self->collect;
				if ($wrong)
				{
					$self->{wrong} = $wrong;	# for the caller's next collect
					return $passed;
				}
			}
			Clock::move(max($until - Clock::now(), 0) + 0.01);
			$moved = 1;
		}
		$self->wake if $moved;
		# what has failed comes due in its turn
		$passed += $n = $self->pass;
	} while ($n);
	return $passed;
}

sub table { my ($name) = @_; return qq(mq."q_$name") }

our $ROW = "m.id, $Verbs::TAG, m.attempts, extract(epoch FROM m.ready_at)::float8, m.last_error, m.priority, m.key, "
  . "extract(epoch FROM m.expires_at)::float8, m.dedup_id, (m.headers - 'x-death')::text, "
  . "(SELECT string_agg(concat_ws('/', d ->> 'queue', d ->> 'id', d ->> 'reason', d ->> 'attempts', coalesce(d ->> 'error', '-')), ' ') "
  . "FROM jsonb_array_elements(m.headers -> 'x-death') d)";

sub rows_of
{
	my ($self, $name) = @_;
	return $self->{admin}->selectall_arrayref("SELECT $ROW FROM " . table($name) . ' m ORDER BY m.id');
}

# Finds out the ids of messages that mq itself has put there.
sub learn_ids
{
	my ($self, @names) = @_;
	my $m = $self->{model};
	foreach my $name (@names ? @names : sort keys %{ $m->{q} })
	{
		my $q = $m->{q}{$name} or next;
		my @unknown = grep { !$_->{ins} && !defined $_->{id} } @{ $q->{msgs} } or next;
		my %known = map { $_->{id} => 1 } grep { defined $_->{id} } @{ $q->{msgs} };
		my %by_tag;
		push @{ $by_tag{ $_->{tag} } }, $_ foreach @unknown;
		foreach my $r (@{ $self->rows_of($name) })
		{
			next if $known{ $r->[0] };
			# replayed messages have the tag of the first, and need not be equal any more
			my $of = $by_tag{ $r->[1] } // [];
			my $new = (first { !row_differs($_, $r) } @$of) // $of->[0] or return "message $r->[0] ($r->[1]) of $name should not be there";
			@$of = grep { $_ != $new } @$of;
			$new->{id} = $r->[0];
			$q->{last_id} = max($q->{last_id} // 0, $r->[0]);
		}
		my $missing = first { !defined $_->{id} } @unknown or next;
		return "message $missing->{tag} should be in $name" unless $self->answer_is_coming($name);
		my $wrong = $self->collect;    # it was taken from there at once
		return $wrong if $wrong;
	}
	return;
}

# What the worker has still to do in a queue: failures to write, dead ones to move.
# What somebody has locked it cannot.
sub undone
{
	my ($q) = @_;
	return grep { !$_->{lease} && ($_->{mem} || $_->{dying}) && !$_->{lock} && !$_->{del} } @{ $q->{msgs} };
}

# Waits until the worker has done it.  Undef, or what is wrong.
sub rest
{
	my ($self, @names) = @_;
	my $m = $self->{model};
	my $start = time;
	my $tries = 0;

	@names = sort keys %{ $m->{q} } unless @names;
	for (;;)
	{
		$self->settle_time(0);
		my $wrong = $self->collect;
		return $wrong if $wrong;
		my @todo = grep { $m->{q}{$_} && undone($m->{q}{$_}) } @names;
		last unless @todo;
		return 'the worker does not write failures, or move dead messages: ' . join ', ', map {
			my $q = $_;
			map { "$_->{id} of $q" . ($_->{dying} ? " ($_->{dying})" : '') } undone($m->{q}{$q})
		} @todo if time - $start > $PATIENCE;
		# what is due at once is left to consumers for half a second; what was locked is tried again after one
		Clock::move($tries % 10 == 0 ? 0.6 : $tries % 10 == 5 ? 1.2 : 0) if $tries;
		$self->settle_time(0);
		$wrong = $self->collect and return $wrong;
		$self->wake_worker if $tries % 3 == 0;
		usleep($tries < 5 ? 500 : 3000);
		$tries++;
		foreach my $name (@todo)
		{
			$wrong = $self->look($name, 0) and return $wrong;
		}
	}
	return $self->learn_ids(@names);
}

# Compares a queue's table with the model and learns what only the row can tell.
# full: also that nothing else is there.
sub look
{
	my ($self, $name, $full) = @_;
	my $m = $self->{model};
	my $q = $m->{q}{$name};
	my $t0 = Clock::now();
	# leases before rows: a failure being written is in one of them at least
	my %failed = map { $_->[0] => $_->[1] } @{ $self->{admin}->selectall_arrayref(
			'SELECT id, state FROM mq.leases$(?)', undef, table($name)) };
	my %row = map { $_->[0] => $_ } @{ $self->rows_of($name) };
	my $now = Clock::now();

	foreach my $msg (my @all = @{ $q->{msgs} })
	{
		next if $msg->{ins} || !defined $msg->{id};
		my $id = $msg->{id};
		my $r = $row{$id};
		my $s = $failed{$id};
		if ($msg->{dying} && !$msg->{lease})
		{
			$m->bury($q, $msg, $t0 - 60, $now) unless $r;
			next;
		}
		if (!$r)
		{
			return if $self->answer_is_coming($name);    # it may have gone there
			return "message $id of $name is not in its table";
		}
		if ($msg->{mem})
		{
			next if $s && $s eq 'leased' && !$msg->{lease};    # its end was not noticed yet
			if ($r->[2] == $msg->{attempts} && ($msg->{lease} ? 0 : !$s))
			{
				return "message $id of $name is due at $r->[3], not within $msg->{ready}[0] and $msg->{ready}[1]"
				  unless Verbs::near($r->[3], [ $msg->{ready}[0], max($msg->{ready}[1], $msg->{unnoticed} ? $now + 4000 : 0) ]);
				$msg->{ready} = [ $r->[3], $r->[3] ];
				delete @$msg{qw(mem unnoticed)};
			}
		}
		elsif ($msg->{ready} && defined $r->[3] && $msg->{ready}[0] != $msg->{ready}[1])
		{
			return "message $id of $name is due at $r->[3], not within $msg->{ready}[0] and $msg->{ready}[1]"
			  unless Verbs::near($r->[3], $msg->{ready});
			$msg->{ready} = [ $r->[3], $r->[3] ] unless $msg->{lock};
		}
		if ($full)
		{
			my $wrong = row_differs($msg, $r);
			return "message $id of $name: $wrong" if $wrong;
		}
	}
	if ($full)
	{
		my %known = map { defined $_->{id} ? ($_->{id} => 1) : () } grep { !$_->{ins} } @{ $q->{msgs} };
		my $extra = first { !$known{$_} } sort keys %row;
		return "message $extra of $name is in its table and should not be" if defined $extra;
	}
	return;
}

# Whether somebody who waits for this queue has got something, or will at once.
sub answer_is_coming
{
	my ($self, $name) = @_;
	my $busy = $self->{c}{busy};
	foreach my $s (grep { my $op = $busy->{$_}; $op->{queues} && grep { $_ eq $name } @{ $op->{queues} } } keys %$busy)
	{
		my $start = time;
		until ($self->{s}{$s}->pg_ready)
		{
			return 0 if time - $start > 1;
			usleep 200;
		}
		return 1;
	}
	return 0;
}

# What the worker has already moved to the dead letters.
sub look_for_buried
{
	my ($self, $name) = @_;
	my $q = $self->{model}{q}{$name};
	my %there = map { $_->[0] => 1 } @{ $self->{admin}->selectall_arrayref('SELECT id FROM ' . table($name)) };
	my @gone = grep { $_->{dying} && !$_->{lease} && defined $_->{id} && !$there{ $_->{id} } } @{ $q->{msgs} };
	$self->{model}->bury($q, $_, Clock::now() - 60, Clock::now()) foreach @gone;
}

sub row_differs
{
	my ($m, $r) = @_;
	my $old = $m->{mem};
	my @say = map { defined $_ ? $_ : 'NULL' } @$r;
	return "tag $r->[1]" if $r->[1] ne $m->{tag};
	return "attempts $r->[2], not $m->{attempts}" if $r->[2] != $m->{attempts} && !($old && $r->[2] == $old->{attempts});
	return "last_error $say[4], not " . join(' or ', map { $_ // 'NULL' } ref $m->{err} ? @{ $m->{err} } : $m->{err}) if !Verbs::err_is($r->[4], $m->{err}) && !($old && Verbs::err_is($r->[4], $old->{err}));
	return "priority $r->[5], not $m->{prio}" if $r->[5] != $m->{prio};
	return "key $say[6]" unless Verbs::same($r->[6], $m->{key});
	return "expires_at $say[7]" unless $m->{exp} ? Verbs::near($r->[7], $m->{exp}) : !defined $r->[7];
	return "ready_at $say[3]" unless $old || ($m->{ready} ? Verbs::near($r->[3], $m->{ready}) : !defined $r->[3]);
	return "dedup_id $say[8]" unless Verbs::same($r->[8], $m->{dedup});
	return "headers $say[9], not " . (Verbs::headers_text($m) // 'NULL') unless Verbs::same($r->[9], Verbs::headers_text($m));
	my $xd = $m->{xd} ? join(' ', map { join '/', map { ref ? join ' or ', map { $_ // '-' } @$_ : $_ // '-' } @$_ } @{ $m->{xd} }) : undef;
	return "x-death $say[10], not " . ($xd // 'NULL') unless death_is($r->[10], $m->{xd});
	$m->{exp} = [ $r->[7], $r->[7] ] if $m->{exp};
	return;
}

sub death_is
{
	my ($got, $want) = @_;
	return !defined $got unless $want;
	return 0 unless defined $got;
	my @texts = ('');
	foreach my $d (@$want)
	{
		my @errs = ref $d->[4] ? @{ $d->[4] } : $d->[4];
		my @ends = map { my $reason = $_; map { join '/', @$d[ 0, 1 ], $reason, $d->[3], $_ // '-' } @errs } ref $d->[2] ? @{ $d->[2] } : $d->[2];
		@texts = map { my $t = $_; map { ($t eq '' ? '' : "$t ") . $_ } @ends } @texts;
	}
	return !!grep { $_ eq $got } @texts;
}

# The whole state.  Undef, or what is wrong.
sub compare
{
	my ($self) = @_;
	my $m = $self->{model};
	my $wrong;
	do
	{
		$wrong = $self->rest // $self->collect;
		return $wrong if $wrong;
	} while ($self->settle_time);

	my %got;
	foreach my $r (@{ $self->{admin}->selectall_arrayref(
				'SELECT queue, id, receipt, attempt, lease_until IS NULL, consumer, extract(epoch FROM lease_until)::float8 FROM mq.in_flight') })
	{
		$got{"$r->[0] $r->[1]"} = $r;
	}
	foreach my $name (sort keys %{ $m->{q} })
	{
		my $q = $m->{q}{$name};
		$wrong = $self->look($name, 1) and return $wrong;
		foreach my $msg (grep { Model::is_delivered($_) } @{ $q->{msgs} })
		{
			my $l = $msg->{lease};
			my $r = delete $got{"$name $msg->{id}"} or return "message $msg->{id} of $name is not in flight";
			return "message $msg->{id} of $name has receipt $r->[2], not $l->{receipt}" if $r->[2] != $l->{receipt};
			return "message $msg->{id} of $name is on attempt $r->[3]" if $r->[3] != $msg->{attempts} + 1;
			return "message $msg->{id} of $name has consumer $r->[5]" if $r->[5] ne $l->{consumer};
			return "message $msg->{id} of $name: lease_until is wrong"
			  if $l->{state} eq 'held' && $l->{deadline} ? !Verbs::near($r->[6], [ $l->{deadline}[0] - 0.02, $l->{deadline}[1] + 0.02 ]) : !$r->[4];
		}
		if ($q->{has_archive})
		{
			my @rows = map { join ' ', map { $_ // '-' } @$_ } @{ $self->{admin}->selectall_arrayref(
					qq(SELECT m.id, $Verbs::TAG, m.priority, m.key, m.consumer FROM mq."a_$name" m)) };
			my @known = map { join ' ', map { $_ // '-' } @$_{qw(id tag prio key consumer)} } @{ $q->{archive} };
			return "the archive of $name: got " . join(', ', sort @rows) . '; expected ' . join(', ', sort @known)
			  if join(',', sort @rows) ne join(',', sort @known);
		}
	}
	return 'in flight and should not be: ' . join ', ', sort keys %got if %got;
	return $self->compare_stats;
}

sub compare_stats
{
	my ($self) = @_;
	my $start = time;
	my $wrong;
	do
	{
		$wrong = undef;
		my $now = Clock::now();
		foreach my $r (@{ $self->{admin}->selectall_arrayref('SELECT queue, ready, delayed, in_flight, exact FROM mq.stats') })
		{
			my ($name, @got) = @$r;
			my $exact = pop @got;
			my $q = $self->{model}{q}{$name} or next;
			my @m = grep { !$_->{ins} } @{ $q->{msgs} };
			my $leased = grep { Model::is_delivered($_) } @m;
			my $dropped = grep { $_->{lease} && $_->{lease}{dropping} } @m;
			my @delayed = grep { !$_->{lease} && ($_->{mem} || $_->{ready} && $_->{ready}[0] > $now) } @m;
			my @want = (@m - $leased - $dropped - @delayed, scalar @delayed, $leased);
			# what has to die and is locked by somebody is counted here or there
			next if grep { $_->{dying} } @m;
			$wrong = "mq.stats of $name says ready, delayed, in_flight: @got" . ($exact ? '' : ' (not exact)') . ", not @want"
			  . join('', map { "\n    $_->{id} is delayed: " . Model::show($_) } @delayed)
			  if !$exact || "@got" ne "@want";
		}
		return unless $wrong;
		$self->wake_worker;
		$self->quiet;
		Clock::move(1.2);
		# which may be the end of a message
		my $other = $self->rest;
		return $other if $other;
		usleep 20000;
	} while (time - $start < $PATIENCE);
	return $wrong;
}

# Whoever waits in the background and must have an answer by now.
sub collect
{
	my ($self, $all) = @_;
	my $c = $self->{c};
	my $wrong = delete $self->{wrong};

	return $wrong if $wrong;
	# producers first: a consumer may have what one of them has just brought
	foreach my $s (sort { ($c->{busy}{$b}{k} eq 'enqueue') <=> ($c->{busy}{$a}{k} eq 'enqueue') || $a <=> $b } keys %{ $c->{busy} })
	{
		my $op = $c->{busy}{$s};
		my $must = $all;
		my $may = 0;
		if ($op->{k} eq 'enqueue')
		{
			my $holder = Verbs::dedup_holder($c, $op);
			$must = 1 unless $holder;
			$op->{waited_for} = $op->{blocker}{ended} && $op->{blocker}{ended} eq 'committed';
		}
		elsif (!$must)
		{
			foreach my $name (@{ $op->{queues} })
			{
				my $q = $self->{model}{q}{$name} or next;
				my ($lo, $hi) = Model::room($q, Clock::now(), Clock::now());
				my @may = $self->{model}->deliverable($q, undef, Clock::now(), $op->{match});
				$must = 1 if $lo > 0 && grep { !Model::may_be_missed($_) } @may;
				$may = 1 if $hi > 0 && $self->{model}->deliverable($q, undef, Clock::now(), $op->{match}, 1);
			}
		}
		my $dbh = $self->{s}{$s};
		my $start = time;
		my $tries = 0;
		until ($dbh->pg_ready)
		{
			last unless $must || $may && time - $start < 0.02;
			return "session $s still waits: $op->{sql}" if time - $start > $PATIENCE;
			if (++$tries % 50 == 0)
			{
				$self->wake_worker;
				kill 'HUP', $self->{pid}{$s};
			}
			usleep 200;
		}
		next unless $dbh->pg_ready;
		$wrong = $self->finish_waiting($s) and return $wrong;
	}
	$self->{collected} = Clock::now();
	return;
}

sub finish_waiting
{
	my ($self, $s) = @_;
	my $op = delete $self->{c}{busy}{$s};
	my $sth = delete $op->{sth};
	my %res;
	eval { $res{n} = $self->{s}{$s}->pg_result; $res{rows} = $sth->{NUM_OF_FIELDS} ? $sth->fetchall_arrayref : []; 1 }
	  or %res = (err => $sth->state || $self->{s}{$s}->state || 'XX000', text => $sth->errstr // $@);
	$self->look_for_buried($_) foreach $self->dying;	# it may have got what the worker has just moved
	# when it was: not before the time at which the receipt was drawn, but the clock
	# may have been moved since
	my ($t0, $t1) = ($self->{collected}, Clock::now());
	if ($op->{k} ne 'enqueue' && !$res{err} && @{ $res{rows} })
	{
		$op->{since} = $t0;
		$t0 = max($t0, $res{rows}[0][2] / 1e6 - 0.05);
	}
	return $self->judge($op, \%res, $t0, $t1);
}

# As a person would write it.
sub brief
{
	my ($sql) = @_;
	$sql =~ s{\Q$Verbs::DELIVERY\E}{m.*}g;
	return $sql;
}

# What the model makes of an answer.
sub judge
{
	my ($self, $op, $res, $t0, $t1) = @_;
	my $m = $self->{model};
	my $v = $Verbs::VERB{ $op->{k} };
	my $s = $op->{s};

	push @{ $self->{log} }, "    -- s$s got " . ($res->{err} // join(', ', map { "$_->[1] of $_->[0]" } @{ $res->{rows} }) || 'nothing')
	  if $op->{queues} || $res->{err};
	return $v->{apply}->($self->{c}, $op, $res, $t0, $t1) if $v->{control} && $op->{k} ne 'time_passes';
	my $auto = !$m->tx($s);
	$m->begin($s) if $auto;
	if ($v->{drops} && !$res->{err} && Model::drops($m->{q}{ $op->{q} }))
	{
		# in an open transaction they are leased to it, by no consumer
		my %there = map { $_->[0] => 1 } @{ $self->{admin}->selectall_arrayref($auto
			? 'SELECT id FROM ' . table($op->{q}) : "SELECT id FROM mq.leases\$('" . table($op->{q}) . "') WHERE pid = $self->{pid}{$s} AND consumer = ''") };
		$res->{dropped} = $auto ? [ grep { !$there{$_} } map { $_->{id} // () } @{ $self->{model}{q}{ $op->{q} }{msgs} } ] : [ keys %there ];
	}
	my $wrong = $v->{apply}->($self->{c}, $op, $res, $t0, $t1);
	return $wrong . $self->server_says($op, $res) if $wrong;
	if ($res->{err})
	{
		$auto ? $m->rollback($s, $t0, $t1) : $m->failed($s, $t0, $t1);
	}
	elsif ($auto)
	{
		$m->commit($s, $t0, $t1);
	}
	return;
}

# What the server has of the messages that an operation names; for people.
sub server_says
{
	my ($self, $op, $res) = @_;
	my $ids = join ',', map { $_->{id} // () } Verbs::refs_of($self->{c}, $op);
	my $got = $op->{queues} && $res->{rows} ? "\n    it returned " . join(', ', map { "$_->[1] of $_->[0]" } @{ $res->{rows} }) : '';
	return $got if $ids eq '';
	my $say = sub {
		my ($what, $sql) = @_;
		my $rows = eval { $self->{admin}->selectall_arrayref($sql) } // [];
		return join '', map { "\n    $what: " . join ' ', map { $_ // 'NULL' } @$_ } @$rows;
	};
	my $elsewhere = join '', map {
		my $d = $_;
		map { $say->("$d->{m}{tag} in $_", "SELECT $ROW FROM " . table($_) . " m WHERE $Verbs::TAG = '$d->{m}{tag}'") } grep { $_ ne $d->{q} } sort keys %{ $self->{model}{q} }
	} Verbs::refs_of($self->{c}, $op);
	return $got . $elsewhere . $say->('row', 'SELECT id, attempts, priority, key, extract(epoch FROM ready_at), last_error FROM ' . table($op->{q}) . " WHERE id IN ($ids)")
	  . $say->('lease', "SELECT id, state, receipt, pid, attempt, extract(epoch FROM leased_at), extract(epoch FROM lease_until) FROM mq.leases\$('"
		  . table($op->{q}) . "') WHERE id IN ($ids)") . "\n    now " . Clock::now();
}

# Does one operation.  Undef, or what is wrong.
sub step
{
	my ($self, $op) = @_;
	my $c = $self->{c};
	my $m = $self->{model};
	my $v = $Verbs::VERB{ $op->{k} };
	my $s = $op->{s};
	my $dbh = $self->{s}{$s};
	my $wrong;

	$c->{now} = Clock::now();
	$op->{skipped} = 1, return if !Verbs::allowed($c, $op);
	if ($op->{k} eq 'compare')
	{
		push @{ $self->{log} }, '-- the whole state is compared';
		return $self->compare;
	}
	if ($op->{k} eq 'time_passes')
	{
		push @{ $self->{log} }, "-- $op->{for} seconds pass";
		$self->{counts}{time_passes}++;
		$self->quiet;
		Clock::move($op->{for});
		$self->wake;
		$self->settle_time;
		$wrong = $self->collect // $self->rest and return $wrong;
		push @{ $c->{marks} }, Clock::now();
		Clock::move(0.01);
		return;
	}
	if ($op->{k} eq 'cancel')
	{
		my $waiting = $c->{busy}{$s};
		push @{ $self->{log} }, "s$s: -- cancelled";
		$self->{counts}{cancel}++;
		my $start = time;
		my $tries = 0;
		until ($dbh->pg_ready)
		{
			return "session $s cannot be cancelled" if time - $start > $PATIENCE;
			# one that comes before the statement has begun does nothing
			kill 'INT', $self->{pid}{$s} if $tries++ % 50 == 0;
			usleep 200;
		}
		my $waiting_op = delete $c->{busy}{$s};
		eval { $dbh->pg_result };
		return $dbh->state eq '57014' ? undef : 'the cancelled statement says ' . $dbh->state;
	}
	my @sql = $v->{sql} ? $v->{sql}->($c, $op) : ();
	$op->{sql} = join '; ', @sql;
	push @{ $self->{log} }, "s$s: " . ($op->{k} eq 'session_end' ? '-- the session ends, and begins anew' : Run::brief("$op->{sql};"));
	$self->{counts}{ $op->{k} }++;
	$self->{counts}{ '  of them auto_ack' }++ if $op->{auto_ack};
	$self->{counts}{ '  of them session' }++ if $op->{session};
	$self->{counts}{ '  of them match' }++ if $op->{match};
	$self->{counts}{ '  of them strict' }++ if $op->{strict};
	$self->{counts}{ '  of them with dedup_id' }++ if $op->{msgs} && grep { defined $_->{dedup} } @{ $op->{msgs} };

	my $t0 = Clock::now();
	if ($op->{waits})
	{
		$op->{called} = [ $t0, $t0 + 2 ];
		$op->{blocker} = Verbs::dedup_holder($c, $op) if $op->{k} eq 'enqueue';
		$dbh->do('SET statement_timeout = 0');
		$op->{sth} = $dbh->prepare($sql[0], { pg_direct => 1, pg_async => PG_ASYNC });
		$op->{sth}->execute;
		$c->{busy}{$s} = $op;
		$self->quiet;
		$self->{counts}{'  of them waited'}++;
	}
	elsif ($op->{k} eq 'session_end')
	{
		my $pid = $self->{pid}{$s};
		$dbh->disconnect;
		my $start = time;
		while ($self->{admin}->selectrow_array('SELECT 1 FROM pg_stat_activity WHERE pid = ?', undef, $pid))
		{
			return "session $s does not end" if time - $start > $PATIENCE;
			usleep 300;
		}
		$v->{apply}->($c, $op, {}, $t0, Clock::now());
		$self->connect_session($s);
	}
	else
	{
		my @touched = $v->{retires} ? sort keys %{ $m->{prepared}{ $op->{gid} }{touched} } : ();
		my $res = query($dbh, @sql);
		# a prepared transaction's end is met by whoever comes next
		$self->retire($_) foreach @touched;
		my $t1 = Clock::now();
		$dbh->do("SET application_name = 's$s'; SET client_min_messages = error") if $op->{k} eq 'discard_all';
		$wrong = $self->judge($op, $res, $t0, $t1) and return $wrong;
		while (my $n = $dbh->pg_notifies)
		{
			return "session $s is notified on $n->[0]" unless $c->{listens}{$s}{ $n->[0] };
		}
	}
	# who waited for this has it before time goes on
	$self->pass;
	$wrong = $self->collect and return $wrong;
	$self->settle_time;
	$wrong = $self->collect and return $wrong;

	my @dying = $self->dying;
	my @failed = grep { my $q = $_; grep { $_->{mem} && ($op->{rest} || $m->{q}{$q}{opt}{ordered} || $_->{unnoticed}) } @{ $m->{q}{$q}{msgs} } } sort keys %{ $m->{q} };
	$wrong = $self->rest(@dying, @failed) if @dying || @failed;
	return $wrong if $wrong;
	$wrong = $self->learn_ids and return $wrong;
	return $self->collect;
}

# Queues with dead messages: they are moved by the worker when it comes to it, and
# all have to know where they are.
sub dying
{
	my ($self) = @_;
	my $queues = $self->{model}{q};
	return grep { grep { $_->{dying} } @{ $queues->{$_}{msgs} } } sort keys %$queues;
}

# Before an operation that sees rows as they are.
sub before
{
	my ($self, $op) = @_;
	my $m = $self->{model};
	my @names = grep { defined && $m->{q}{$_} } $op->{q}, @{ $op->{queues} // [] }, $op->{target};
	my $v = $Verbs::VERB{ $op->{k} };
	my $drops = $v->{drops} && grep { defined $m->{q}{$_}{opt}{max_length} } @names;

	do
	{
		$self->settle_time;
		my $wrong = $self->collect;
		my @dying = $self->dying;
		$wrong //= $self->rest(@dying) if @dying;
		$wrong //= $self->rest(@names) if @names && ($v->{settled} || $drops);

		# what is due and when the row says so: the order depends on it
		foreach my $name ($op->{queues} || $v->{drops} && Model::drops($m->{q}{ $op->{q} }) ? @names : ())
		{
			next unless 1 < grep { $_->{ready} && $_->{ready}[0] != $_->{ready}[1] } @{ $m->{q}{$name}{msgs} };
			$wrong //= $self->look($name, 0);
		}
		$wrong //= $self->learn_ids;
		return $wrong if $wrong;
	} while ($m->reached(Clock::now(), $MARGIN));
	return;
}

sub retire
{
	my ($self, $name) = @_;
	$self->{model}{q}{$name} or return;
	$self->{admin}->selectall_arrayref('SELECT * FROM mq.dequeue(?, match => ?)', undef, $name, '{"nothing": "like this"}');
	return;
}

# All transactions closed, all time passed that anybody waits for.
sub finish
{
	my ($self) = @_;
	my $m = $self->{model};
	my $wrong;
	my $n = 1e6;
	$wrong = $self->step({ n => $n++, s => $_, k => 'cancel' }) and return $wrong
	  foreach grep { $self->{c}{busy}{$_}{k} eq 'dequeue_wait' } sort keys %{ $self->{c}{busy} };
	$wrong = $self->step({ n => $n++, s => $_, k => 'commit' }) and return $wrong foreach sort grep { !$self->{c}{busy}{$_} } keys %{ $m->{tx} };
	foreach my $q (grep { $m->{q}{$_}{paused} } sort keys %{ $m->{q} })
	{
		my ($idle) = grep { !$self->{c}{busy}{$_} } 1 .. $self->{sessions};
		$wrong = $self->step({ n => $n++, s => $idle, k => 'resume', q => $q }) and return $wrong;
	}
	my ($idle) = grep { !$self->{c}{busy}{$_} } 1 .. $self->{sessions};
	$wrong = $self->step({ n => $n++, s => $idle, k => 'rollback_prepared', gid => $_ }) and return $wrong foreach sort keys %{ $m->{prepared} };
	$wrong = $self->step({ n => $n++, s => $_, k => 'commit' }) and return $wrong foreach sort keys %{ $m->{tx} };
	return $self->compare;
}

1;

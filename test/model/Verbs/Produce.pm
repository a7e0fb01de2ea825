# Enqueue, in all its ways.
package Verbs;

use strict;
use warnings;

use List::Util qw(min max first);

our %VERB;

sub make_message
{
	my ($c, $op, $i) = @_;
	my %m = (tag => "$op->{n}.$i");
	$m{data} = 1 if chance($c, 0.15);
	$m{headers} = { c => pick($c, 'a', 'b'), chance($c, 0.3) ? (kind => pick($c, 'x', 'y')) : () } if chance($c, 0.5);
	$m{key} = pick($c, 'anna', 'ben', 'carl', '') if chance($c, 0.5);
	$m{dedup} = 'd' . span($c, 1, 5) if chance($c, $op->{dedup_p});
	return \%m;
}

sub body_sql { my ($m) = @_; return $m->{data} ? undef : quote(qq({"t": "$m->{tag}"})) . '::jsonb' }
sub data_sql { my ($m) = @_; return $m->{data} ? quote($m->{tag}) . '::bytea' : undef }

sub make_enqueue
{
	my ($c, $op, $n) = @_;
	$op->{q} = some_queue($c);
	my $ordered = queue($c, $op->{q})->{opt}{ordered};
	$op->{dedup_p} = $op->{q} =~ /_dead$/ ? 0 : chance($c, 0.3) ? 0.7 : 0;
	$op->{msgs} = [ map { make_message($c, $op, $_) } 0 .. $n - 1 ];
	$op->{prio} = chance($c, $ordered ? 0.02 : 0.3) ? span($c, 1, 9) : 0;
	if (chance($c, $ordered ? 0.02 : 0.3))
	{
		if (chance($c, 0.6)) { $op->{delay} = pick($c, 20, 60, 300, 1800) }
		else { $op->{at} = pick($c, -3600, -60, 60, 600) }
	}
	$op->{ttl} = pick($c, 60, 900, 7200) if chance($c, 0.15);
	return 1;
}

# The open transaction that an enqueue with this dedup_id would have to wait for.
sub dedup_holder
{
	my ($c, $op) = @_;
	my $q = queue($c, $op->{q});
	my $tx = tx_of($c, $op);
	foreach my $m (@{ $op->{msgs} })
	{
		my $r = defined $m->{dedup} ? $q->{dedup}{ $m->{dedup} } : undef;
		return $r->{tx} if $r && $r->{tx} && (!$tx || $r->{tx} != $tx);
	}
	return;
}

sub can_enqueue
{
	my ($c, $op) = @_;
	return 0 unless usable($c, $op, $op->{q});
	my $q = queue($c, $op->{q});
	return 0 if Model::drops($q) && grep { $_->{mem} } @{ $q->{msgs} };
	if (dedup_holder($c, $op))
	{
		# one waits, alone and in a queue that has no other reason to refuse
		return 0 if @{ $op->{msgs} } > 1 || defined $q->{opt}{max_length} || $op->{k} ne 'enqueue'
		  || grep { $_->{k} eq 'enqueue' } values %{ $c->{busy} };
		my $tx = dedup_holder($c, $op);
		return 0 if !$tx->{prepared} && $c->{busy}{ $tx->{s} };
		$op->{waits} = 1;
	}
	return 1;
}

sub place_args
{
	my ($c, $op) = @_;
	$op->{at_time} = sprintf '%.6f', $c->{now} + $op->{at} if defined $op->{at};
	return (
		defined $op->{delay} ? 'delay => ' . secs($op->{delay}) : (),
		$op->{prio} ? "priority => $op->{prio}" : (),
		defined $op->{ttl} ? 'ttl => ' . secs($op->{ttl}) : (),
		defined $op->{at} ? "deliver_at => to_timestamp($op->{at_time})" : ());
}

sub sql_enqueue
{
	my ($c, $op) = @_;
	my ($m) = @{ $op->{msgs} };
	return 'SELECT mq.enqueue(' . join(', ', quote($op->{q}),
		$m->{data} ? 'data => ' . data_sql($m) : body_sql($m),
		$m->{headers} ? 'headers => ' . quote(json($m->{headers})) : (),
		defined $m->{key} ? 'key => ' . quote($m->{key}) : (),
		defined $m->{dedup} ? 'dedup_id => ' . quote($m->{dedup}) : (),
		place_args($c, $op)) . ')';
}

sub sql_enqueue_batch
{
	my ($c, $op) = @_;
	my @m = @{ $op->{msgs} };
	my $array = sub {
		my ($name, $type, @v) = @_;
		return (grep { defined } @v) ? "$name => ARRAY[" . join(', ', map { $_ // 'NULL' } @v) . "]::${type}[]" : ();
	};
	my $q = sub { return defined $_[0] ? quote($_[0]) : undef };
	return 'SELECT mq.enqueue_batch(' . join(', ', quote($op->{q}),
		$array->('bodies', 'jsonb', map { body_sql($_) } @m),
		$array->('datas', 'bytea', map { data_sql($_) } @m),
		$array->('headers', 'jsonb', map { $q->(json($_->{headers})) } @m),
		$array->('keys', 'text', map { $q->($_->{key}) } @m),
		$array->('dedup_ids', 'text', map { $q->($_->{dedup}) } @m),
		place_args($c, $op)) . ')';
}

# The row that a message becomes.
sub row_of
{
	my ($q, $op, $m, $id, $t0, $t1) = @_;
	my $ready = defined $op->{at} ? [ $op->{at_time} - 1e-5, $op->{at_time} + 1e-5 ] : undef;
	my $ttl = min(grep { defined } $op->{ttl}, $q->{opt}{ttl});
	# one that waited for another transaction was given its times before
	($t0, $t1) = @{ $op->{called} } if $op->{called};
	$ready = [ $t0 + $op->{delay}, $t1 + $op->{delay} ] if defined $op->{delay};
	my @from = $ready && $ready->[1] > $t1 ? @$ready : ($t0, $t1);
	return {
		%$m{qw(tag headers key dedup)}, body => !$m->{data}, id => $id, prio => $op->{prio}, attempts => 0,
		ready => $ready, exp => defined $ttl ? [ $from[0] + $ttl, $from[1] + $ttl ] : undef };
}

# Makes room for n messages; undef, or what is wrong.  dropped: the ids of those that went.
sub make_room
{
	my ($c, $tx, $q, $n, $dropped, $t0, $t1) = @_;
	my ($lack, $want) = Model::places($q, $n);
	return if !$want;
	my @may = $c->{model}->droppable($q, $tx, $t0);
	my %dropped = map { $_ => 1 } @$dropped;
	my @gone = grep { defined $_->{id} && $dropped{ $_->{id} } && !$_->{ins} && !$_->{del} } @{ $q->{msgs} };
	my %may = map { $_->{id} => 1 } @may;
	my $n_want = min($want, scalar @may);
	my $n_least = max($lack, min($want, scalar grep { !$_->{lock} } @may));
	my $bad = first { !$may{ $_->{id} } } @gone;
	return "message $bad->{id} of $q->{name} was dropped and should not have been" if $bad;
	return "$q->{name}: " . @gone . " messages were dropped to make room, not $n_want" if @gone > $n_want || @gone < $n_least;
	if (!grep { $_->{lock} || !Model::is_exact($_) } @may)
	{
		my %first = map { $_->{id} => 1 } @may[ 0 .. $n_want - 1 ];
		$bad = first { !$first{ $_->{id} } } @gone;
		return "$q->{name}: message $bad->{id} was dropped, but should not have been the first" if $bad;
	}
	foreach my $m (@gone)
	{
		$m->{lease} = { receipt => -1, state => 'open', tx => $tx, dropping => 1 };
		Model::did($tx, sub { }, sub { $m->{lease} = undef });
		$c->{model}->settle($tx, $q, $m, 'drop', t0 => $t0, t1 => $t1);
	}
	return;
}

sub apply_enqueue
{
	my ($c, $op, $res, $t0, $t1) = @_;
	my $tx = tx_of($c, $op);
	my $q = queue($c, $op->{q});
	my @m = @{ $op->{msgs} };
	my $window = $q->{opt}{dedup_window};
	my (%known, @new);

	touch($c, $tx, $op->{q});
	if ($q->{opt}{ordered} && ($op->{prio} || defined $op->{delay} || defined $op->{at}))
	{
		return wrong_error($res, '22023');
	}
	# which of them are remembered: undef = new, else ids it may be
	foreach my $i (0 .. $#m)
	{
		my $d = $m[$i]{dedup};
		my @ids;
		if (defined $d && exists $known{$d}) { $m[$i]{first} = $known{$d}; next }
		if (defined $d && $window == 0)
		{
			@ids = map { $_->{id} } grep {
				defined $_->{dedup} && $_->{dedup} eq $d && (!$_->{ins} || $_->{ins} == $tx)
				  && !($_->{del} && $_->{del} == $tx)
			} @{ $q->{msgs} };
		}
		elsif (defined $d)
		{
			my $r = $q->{dedup}{$d};
			# while it waited for the first the window may have passed: then it is either
			my $late = $op->{waited_for} && !$res->{err} && $r && $res->{rows}[$i][0] == $r->{id};
			@ids = $r->{id} if $r && ($r->{until}[0] > $t0 || $late);
		}
		$m[$i]{first} = @ids ? \@ids : undef;
		next if @ids;
		push @new, $i;
		$known{$d} = $i if defined $d;
	}
	my ($lack, $want) = Model::places($q, scalar @new);
	my @may = $c->{model}->droppable($q, $tx, $t0);
	my $full = !defined $lack || $lack > @may;
	# what it has locked itself, others may have put aside until it ends
	return if ($res->{err} // '') eq '53400' && !$full && $lack > grep { !$_->{lock} } @may;
	return wrong_error($res, $full ? '53400' : undef) if $res->{err} || $full;
	my @ids = map { $_->[0] } @{ $res->{rows} };
	return 'expected ' . @m . ' ids, got ' . @ids if @ids != @m;

	my $wrong = make_room($c, $tx, $q, scalar @new, $res->{dropped}, $t0, $t1);
	return $wrong if $wrong;
	# those that others were dropped for take their places
	my $reserved = @new - min($lack, scalar @new);
	foreach my $i (0 .. $#m)
	{
		my $f = $m[$i]{first};
		if (defined $f)
		{
			my @may = ref $f ? @$f : $ids[$f];
			return "a dedup_id that is remembered: expected id @may, got $ids[$i]" unless grep { $_ == $ids[$i] } @may;
			next;
		}
		# drawn before it waited, it may be older than others
		return "id $ids[$i] is not new" if $ids[$i] <= ($q->{last_id} // 0) && !$op->{waits};
		$q->{last_id} = max($q->{last_id} // 0, $ids[$i]);
		if (defined(my $d = $m[$i]{dedup}))
		{
			my $old = $q->{dedup}{$d};
			my $r = $q->{dedup}{$d} = { id => $ids[$i], until => [ $t0 + $window, $t1 + $window ], tx => $tx };
			Model::did($tx, sub { $r->{tx} = undef }, sub { $q->{dedup}{$d} = $old; delete $q->{dedup}{$d} unless $old });
		}
		Model::insert($tx, $q, row_of($q, $op, $m[$i], $ids[$i], $t0, $t1), $reserved-- > 0);
	}
	return;
}

my %enqueue = (can => \&can_enqueue, apply => \&apply_enqueue, drops => 1);
$VERB{enqueue} = { %enqueue, idle => 9, tx => 12, sql => \&sql_enqueue, make => sub { make_enqueue(@_, 1) } };
$VERB{enqueue_batch} = {
	%enqueue, idle => 6, tx => 4, sql => \&sql_enqueue_batch, make => sub { my ($c, $op) = @_; make_enqueue($c, $op, span($c, 2, 6)) } };
$VERB{insert} = {
	%enqueue, idle => 3, tx => 3, make => sub {
		my ($c, $op) = @_;
		make_enqueue($c, $op, 1);
		delete @$op{qw(ttl)};
		delete $op->{msgs}[0]{dedup};
		$op->{at} = delete $op->{delay} if defined $op->{delay};
		return 1;
	},
	sql => sub {
		my ($c, $op) = @_;
		my ($m) = @{ $op->{msgs} };
		$op->{at_time} = sprintf '%.6f', $c->{now} + $op->{at} if defined $op->{at};
		my %col = (
			$m->{data} ? (data => data_sql($m)) : (body => body_sql($m)),
			priority => $op->{prio}, headers => quote(json($m->{headers})), key => quote($m->{key}),
			ready_at => defined $op->{at} ? "to_timestamp($op->{at_time})" : 'NULL');
		my @col = sort keys %col;
		return qq(INSERT INTO mq."q_$op->{q}" (@{[ join ', ', @col ]}) VALUES (@{[ join ', ', @col{@col} ]}) RETURNING id);
	} };

1;

# Everything a session can do: for each verb how a random one is made, whether it
# can be done now, its SQL, and what the model makes of the answer.
#
# An operation is a hash that stands for itself: it names messages by their tags
# and deliveries by the operation they came from, so that it keeps its meaning
# when others are left out.  What it refers to and cannot be found makes it
# impossible (can), and it is passed over.
package Verbs;

use strict;
use warnings;

use List::Util qw(min max first uniq sum0);
use Model;

our %VERB;

# What an operation's code gets: the model, random numbers, deliveries so far.
#   { model, rnd, now, deliveries => { "op.position" => {...} }, order => [ names ], busy => { session => op } }

sub pick { my ($c, @from) = @_; return $from[ int($c->{rnd}->() * @from) ] }
sub chance { my ($c, $p) = @_; return $c->{rnd}->() < $p }
sub span { my ($c, $lo, $hi) = @_; return $lo + int($c->{rnd}->() * ($hi - $lo + 1)) }

sub quote
{
	my ($t) = @_;
	return 'NULL' unless defined $t;
	$t =~ s/'/''/g;
	return "'$t'";
}
sub secs { return defined $_[0] ? "'$_[0] seconds'" : 'NULL' }

sub json
{
	my ($h) = @_;
	return undef unless $h;
	return '{' . join(', ', map { qq("$_": "$h->{$_}") } sort { length $a <=> length $b || $a cmp $b } keys %$h) . '}';
}

sub queue { my ($c, $name) = @_; return $c->{model}{q}{$name} }

sub tx_of { my ($c, $op) = @_; return $c->{model}->tx($op->{s}) }

# A queue to work with; now and then one for dead letters.
sub some_queue
{
	my ($c) = @_;
	my @names = sort keys %{ $c->{model}{q} };
	my @main = grep { !/_dead$/ } @names;
	return pick($c, chance($c, 0.12) ? @names : @main);
}

# Whether this queue can be used by this transaction without waiting.
sub usable
{
	my ($c, $op, @names) = @_;
	my $tx = tx_of($c, $op);
	foreach my $name (@names)
	{
		my $q = queue($c, $name) or return 0;
		return 0 if $tx && $q->{ddl} && $q->{ddl} == $tx;
		# a transaction that was open by then may have the options of before
		return 0 if $tx && ($q->{altered} // 0) > $tx->{n};
	}
	return 1;
}

# Statements of plain SQL see what their snapshot sees; the model does not keep those.
sub plain_ok { my ($c, $op) = @_; my $tx = tx_of($c, $op); return !$tx || $tx->{iso} eq 'rc' }

sub wrong_error
{
	my ($res, $want) = @_;
	my $got = $res->{err} // 'none';
	return $got eq ($want // 'none') ? undef : 'expected ' . ($want ? "error $want" : 'no error') . ", got $got: " . ($res->{text} // '');
}

sub touch
{
	my ($c, $tx, @names) = @_;
	foreach my $name (@names)
	{
		$tx->{touched}{$name} = 1;
		my $dead = queue($c, $name) && queue($c, $name)->{opt}{dead_letter};
		$tx->{touched}{$dead} = 1 if $dead;
	}
}

sub touched_by_others
{
	my ($c, $op, $name) = @_;
	my $own = tx_of($c, $op);
	return grep { (!$own || $_ != $own) && $_->{touched}{$name} } $c->{model}->open_tx;
}

sub held_by_other { my ($m, $tx) = @_; return $m->{lock} && (!$tx || $m->{lock} != $tx) || $m->{del} && (!$tx || $m->{del} != $tx) }

# -------------------------------------------------------------- producing

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
	return 0 if defined $q->{opt}{max_length} && $q->{opt}{overflow} eq 'drop_head' && grep { $_->{mem} } @{ $q->{msgs} };
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
	my $bad = first { !$may{ $_->{id} } } @gone;
	return "message $bad->{id} of $q->{name} was dropped and should not have been" if $bad;
	return "$q->{name}: " . @gone . " messages were dropped to make room, not $n_want" if @gone != $n_want;
	if (!grep { Model::is_loose($_) || !Model::is_exact($_) } @may)
	{
		my %first = map { $_->{id} => 1 } @may[ 0 .. $n_want - 1 ];
		$bad = first { !$first{ $_->{id} } } @gone;
		return "$q->{name}: message $bad->{id} was dropped, but should not have been the first" if $bad;
	}
	foreach my $m (@gone)
	{
		$m->{lease} = { receipt => -1, state => 'open', tx => $tx };
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
			@ids = $r->{id} if $r && ($r->{until}[0] > $t0 || $op->{waited_for});
		}
		$m[$i]{first} = @ids ? \@ids : undef;
		next if @ids;
		push @new, $i;
		$known{$d} = $i if defined $d;
	}
	my ($lack, $want) = Model::places($q, scalar @new);
	my @may = $c->{model}->droppable($q, $tx, $t0);
	my $full = !defined $lack || $lack > @may;
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

# -------------------------------------------------------------- consuming

our $TAG = q{coalesce(m.body ->> 't', convert_from(m.data, 'UTF8'))};
our $DELIVERY = "m.queue, m.id, m.receipt, m.attempt, extract(epoch FROM m.lease_until)::float8, m.priority, m.key, "
  . "(m.headers - 'x-death')::text, $TAG, m.dedup_id, extract(epoch FROM m.expires_at)::float8, m.last_error";

sub make_dequeue
{
	my ($c, $op) = @_;
	$op->{queues} //= [ some_queue($c) ];
	$op->{max} = chance($c, 0.4) ? 1 : span($c, 2, 8);
	$op->{lease} = pick($c, 30, 120, 900, 7200) if chance($c, 0.4);
	$op->{auto_ack} = 1 if chance($c, 0.12);
	$op->{session} = 1 if !$op->{auto_ack} && !$op->{lease} && chance($c, 0.12);
	$op->{consumer} = pick($c, 'ada', 'bob') if chance($c, 0.3);
	$op->{match} = chance($c, 0.7) ? { c => pick($c, 'a', 'b') } : { kind => 'x' } if chance($c, 0.15);
	return 1;
}

sub can_dequeue { my ($c, $op) = @_; return usable($c, $op, @{ $op->{queues} }) }

sub dequeue_args
{
	my ($op) = @_;
	return (
		$op->{max} != 1 ? "max => $op->{max}" : (),
		defined $op->{lease} ? 'lease => ' . secs($op->{lease}) : (),
		$op->{wait} ? "wait => '$op->{wait}'" : (),
		$op->{auto_ack} ? 'auto_ack => true' : (),
		$op->{session} ? 'session => true' : (),
		defined $op->{consumer} ? 'consumer => ' . quote($op->{consumer}) : (),
		$op->{match} ? 'match => ' . quote(json($op->{match})) : ());
}

sub sql_dequeue
{
	my ($c, $op) = @_;
	return "SELECT $DELIVERY FROM mq.dequeue(" . join(', ', quote($op->{queues}[0]), dequeue_args($op)) . ') m';
}

sub near { my ($t, $between) = @_; return defined $t && $t >= $between->[0] - 0.001 && $t <= $between->[1] + 0.001 }

sub same { my ($a, $b) = @_; return defined $a ? defined $b && $a eq $b : !defined $b }

sub headers_text { my ($m) = @_; return json($m->{headers} // ($m->{xd} ? {} : undef)) }

sub err_is
{
	my ($got, $want) = @_;
	return !!grep { same($got, $_) } ref $want ? @$want : $want;
}

# Whether the columns of a delivery are those of the message.
sub judge_row
{
	my ($m, $r, $until) = @_;
	my (undef, $id, undef, $attempt, $lease, $prio, $key, $headers, $tag, $dedup, $exp, $err) = @$r;
	my $what = "message $id";
	return "$what: attempt $attempt instead of " . ($m->{attempts} + 1) if $attempt != $m->{attempts} + 1;
	return "$what: lease_until is wrong" if $until ? !near($lease, $until) : defined $lease;
	return "$what: priority $prio instead of $m->{prio}" if $prio != $m->{prio};
	return "$what: another key" unless same($key, $m->{key});
	return "$what: headers " . ($headers // 'NULL') . ' instead of ' . (headers_text($m) // 'NULL') unless same($headers, headers_text($m));
	return "$what: body of $tag instead of $m->{tag}" if $tag ne $m->{tag};
	return "$what: another dedup_id" unless same($dedup, $m->{dedup});
	return "$what: expires_at is " . ($exp // "NULL") . ", not " . ($m->{exp} ? "@{ $m->{exp} }" : "NULL") if $m->{exp} ? !near($exp, $m->{exp}) : defined $exp;
	return "$what: last_error " . ($err // 'NULL') unless err_is($err, $m->{err});
	$m->{err} = $err;
	return;
}

sub find_id { my ($q, $id) = @_; return first { defined $_->{id} && $_->{id} == $id } @{ $q->{msgs} } }

# What a dequeue delivered: judged and noted.
sub deliver
{
	my ($c, $op, $rows, $t0, $t1) = @_;
	my $tx = tx_of($c, $op);
	my $m = $c->{model};
	my ($had, $ended, $pos) = (0, 0, 0);
	my @rows = @$rows;
	my $receipt = @rows ? $rows[0][2] : undef;

	if (@rows)
	{
		return "a receipt that is older than others: $receipt after $c->{last_receipt}" if $receipt <= $c->{last_receipt};
		$c->{last_receipt} = $receipt;
		return 'more than one receipt' if grep { $_->[2] != $receipt } @rows;
	}
	foreach my $name (uniq @{ $op->{queues} })
	{
		my $q = queue($c, $name);
		my (@got, @here);
		push @here, shift @rows while @rows && $rows[0][0] eq $name;
		foreach my $r (@here)
		{
			my @new = grep { !defined $_->{id} && !$_->{ins} && $_->{tag} eq $r->[8] } @{ $q->{msgs} };
			my $found = find_id($q, $r->[1]) // (first { !judge_row($_, [ @$r[ 0 .. 3 ], undef, @$r[ 5 .. 11 ] ]) } @new) // $new[0];
			return "message $r->[1] of $name is unknown" unless $found;
			$found->{id} //= $r->[1];
			push @got, $found;
		}
		last if !@here && ($ended || $had >= $op->{max});
		return 'more than max, or more after the last attempt' if $ended || $had >= $op->{max};
		my $wrong = $m->judge_delivery($q, $tx, $op->{waits} ? $c->{clock}->() : $t0, $op->{match}, $op->{max} - $had, $had, \@got, $t0, $t1, \$ended);
		return $wrong if $wrong;
		my $dur = $op->{lease} // $q->{opt}{lease};
		foreach my $i (0 .. $#got)
		{
			my $msg = $got[$i];
			my $until = $op->{session} || $op->{auto_ack} ? undef : [ $t0 + $dur, $t1 + $dur ];
			$wrong = judge_row($msg, $here[$i], $until) and return $wrong;
			$m->claim($tx, $q, $msg,
				receipt => $receipt, dur => $dur, session => $op->{session}, s => $op->{s}, consumer => $op->{consumer} // "s$op->{s}");
			my $ref = "$op->{n}.$pos";
			$c->{deliveries}{$ref} = { m => $msg, q => $name, id => $msg->{id}, receipt => $receipt };
			push @{ $c->{order} }, $ref;
			$pos++;
		}
		Model::take_tokens($q, scalar @got, $t0, $t1);
		$had += @got;
		touch($c, $tx, $name);
		$q->{was} = [] if @got;
		# failures in memory that were looked at and not taken may be due anew
		foreach my $f (grep { $_->{mem} && !$_->{lease} && $_->{ready}[0] <= $t1 } @{ $q->{msgs} })
		{
			$f->{ready}[1] = max($f->{ready}[1], $t1 + ($f->{lock} || $f->{del} ? 1.1 : 0));
		}
		if ($op->{auto_ack})
		{
			$m->settle($tx, $q, $_, 'ack', t0 => $t0, t1 => $t1) foreach @got;
		}
	}
	return 'messages of a queue that was not asked, or out of the order of queues' if @rows;
	return;
}

sub apply_dequeue
{
	my ($c, $op, $res, $t0, $t1) = @_;
	return wrong_error($res) if $res->{err};
	return deliver($c, $op, $res->{rows}, $t0, $t1);
}

my %dequeue = (can => \&can_dequeue, apply => \&apply_dequeue, sql => \&sql_dequeue, make => \&make_dequeue);
$VERB{dequeue} = { %dequeue, idle => 16, tx => 16 };
$VERB{dequeue_any} = {
	%dequeue, idle => 3, tx => 3,
	make => sub {
		my ($c, $op) = @_;
		$op->{queues} = [ map { some_queue($c) } 1 .. span($c, 2, 4) ];
		return make_dequeue($c, $op);
	},
	sql => sub {
		my ($c, $op) = @_;
		return "SELECT $DELIVERY FROM mq.dequeue_any(" . join(', ', quote('{' . join(',', @{ $op->{queues} }) . '}'), dequeue_args($op)) . ') m';
	} };
$VERB{ack_message} = {
	%dequeue, idle => 3, tx => 3,
	make => sub {
		my ($c, $op) = @_;
		make_dequeue($c, $op);
		delete @$op{qw(auto_ack session)};
		return 1;
	},
	sql => sub {
		my ($c, $op) = @_;
		return "SELECT $DELIVERY, mq.ack(m) FROM mq.dequeue(" . join(', ', quote($op->{queues}[0]), dequeue_args($op)) . ') m';
	},
	apply => sub {
		my ($c, $op, $res, $t0, $t1) = @_;
		my $wrong = apply_dequeue(@_);
		return $wrong if $wrong;
		my $q = queue($c, $op->{queues}[0]);
		foreach my $r (@{ $res->{rows} })
		{
			return "message $r->[1] could not be acknowledged" unless $r->[-1];
			$c->{model}->settle(tx_of($c, $op), $q, find_id($q, $r->[1]), 'ack', t0 => $t0, t1 => $t1);
		}
		return;
	} };

# Waits for a message in the background, until one comes or it is cancelled.
$VERB{dequeue_wait} = {
	%dequeue, idle => 2, tx => 0,
	make => sub {
		my ($c, $op) = @_;
		make_dequeue($c, $op);
		$op->{wait} = '1000 hours';
		return 1;
	},
	can => sub {
		my ($c, $op) = @_;
		return 0 if grep { $_->{k} eq 'dequeue_wait' } values %{ $c->{busy} };
		$op->{waits} = 1;
		return can_dequeue($c, $op);
	} };
$VERB{cancel} = {
	idle => 0, tx => 0, make => sub { 1 }, can => sub { my ($c, $op) = @_; my $b = $c->{busy}{ $op->{s} }; return $b && $b->{k} eq 'dequeue_wait' } };

$VERB{wait} = {
	idle => 2, tx => 0, make => sub { my ($c, $op) = @_; $op->{q} = some_queue($c) },
	can => sub { my ($c, $op) = @_; return usable($c, $op, $op->{q}) },
	sql => sub { my ($c, $op) = @_; return 'CALL mq.wait(' . quote($op->{q}) . ", '1 ms')" },
	apply => sub {
		my ($c, $op, $res, $t0, $t1) = @_;
		foreach my $f (grep { $_->{mem} && !$_->{lease} && $_->{ready}[0] <= $t1 } @{ queue($c, $op->{q})->{msgs} })
		{
			$f->{ready}[1] = max($f->{ready}[1], $t1 + ($f->{lock} || $f->{del} ? 1.1 : 0));
		}
		return wrong_error($res);
	} };

# --------------------------------------------------------------- settling

# Deliveries of one queue, most of them current.
sub some_deliveries
{
	my ($c, $op, $n) = @_;
	my $tx = tx_of($c, $op);
	my @all = map { [ $_, $c->{deliveries}{$_} ] } @{ $c->{order} };
	@all = @all[ -200 .. -1 ] if @all > 200;
	my @current = grep { Model::current($_->[1]{m}, $_->[1]{receipt}, $tx // 0) && !held_by_other($_->[1]{m}, $tx) } @all;
	my @from = chance($c, 0.9) ? @current : @all;
	@from = @all unless @from;
	return unless @from;
	my $first = pick($c, @from);
	my @here = grep { $_->[1]{q} eq $first->[1]{q} && $_ != $first } @from;
	my @refs = $first->[0];
	push @refs, splice(@here, int($c->{rnd}->() * @here), 1)->[0] while @here && @refs < $n;
	push @refs, $refs[0] if $n > 1 && chance($c, 0.1);
	$op->{q} = $first->[1]{q};
	$op->{refs} = \@refs;
	return 1;
}

sub refs_of
{
	my ($c, $op) = @_;
	return map { $c->{deliveries}{$_} // () } @{ $op->{refs} // [] };
}

# None of their rows may be somebody else's, or we would wait.
sub can_settle
{
	my ($c, $op) = @_;
	my $tx = tx_of($c, $op);
	my @d = refs_of($c, $op);
	return 0 if @d != @{ $op->{refs} } || !usable($c, $op, $op->{q});
	return !grep { !$_->{m}{gone} && $_->{m}{lease} && ($_->{m}{del} || held_by_other($_->{m}, $tx)) } @d;
}

# The deliveries that are current, each once.
sub current_of
{
	my ($c, $op) = @_;
	my $tx = tx_of($c, $op);
	my @now = grep { Model::current($_->{m}, $_->{receipt}, $tx) } refs_of($c, $op);
	my %seen;
	return grep { !$seen{ $_->{m} }++ } @now;
}

sub array_sql { my ($type, @v) = @_; return "'{" . join(',', @v) . "}'::${type}[]" }

sub settle_sql
{
	my ($c, $op, $verb, @args) = @_;
	my @d = refs_of($c, $op);
	push @args, 'strict => true' if $op->{strict};
	my @target = $op->{batch}
	  ? (array_sql('bigint', map { $_->{id} } @d), array_sql('bigint', map { $_->{receipt} } @d))
	  : ($d[0]{id}, $d[0]{receipt});
	return "SELECT mq.$verb" . ($op->{batch} ? '_batch' : '') . '(' . join(', ', quote($op->{q}), @target, @args) . ')';
}

sub apply_settle
{
	my ($c, $op, $verb, $res, $t0, $t1) = @_;
	my $tx = tx_of($c, $op);
	my $q = queue($c, $op->{q});
	my @now = current_of($c, $op);
	my %asked = map { ("$_->{id}/$_->{receipt}" => 1) } refs_of($c, $op);

	touch($c, $tx, $op->{q});
	return wrong_error($res, $op->{strict} && @now < keys %asked ? '55000' : undef)
	  if $res->{err} || $op->{strict} && @now < keys %asked;
	my $got = $res->{rows}[0][0];
	return "$verb returned $got, not " . @now if $got != @now;
	foreach my $d (@now)
	{
		if ($verb eq 'extend')
		{
			my $l = $d->{m}{lease};
			@$l{qw(session dur)} = (0, $op->{for});
			$l->{deadline} = [ $t0 + $op->{for}, $t1 + $op->{for} ] if $l->{state} eq 'held';
		}
		else
		{
			$c->{model}->settle($tx, $q, $d->{m}, $verb, delay => $op->{delay}, reason => $op->{reason}, t0 => $t0, t1 => $t1);
		}
	}
	return;
}

my %weight = (ack => 9, nack => 6, reject => 3, release => 4, extend => 3);
foreach my $verb (keys %weight)
{
	foreach my $batch (0, 1)
	{
		my $w = $weight{$verb} / ($batch ? 2 : 1);
		$VERB{ $verb . ($batch ? '_batch' : '') } = {
			idle => $w, tx => $w,
			make => sub {
				my ($c, $op) = @_;
				$op->{batch} = $batch;
				$op->{strict} = 1 if chance($c, 0.1);
				$op->{delay} = pick($c, 0, 30, 600) if $verb eq 'nack' && chance($c, 0.4);
				$op->{reason} = 'because' if ($verb eq 'nack' || $verb eq 'reject') && chance($c, 0.6);
				$op->{for} = pick($c, 45, 600, 3600) if $verb eq 'extend';
				return some_deliveries($c, $op, $batch ? span($c, 1, 5) : 1);
			},
			can => \&can_settle,
			sql => sub {
				my ($c, $op) = @_;
				return settle_sql($c, $op, $verb,
					defined $op->{for} ? secs($op->{for}) : (),
					defined $op->{delay} ? 'delay => ' . secs($op->{delay}) : (),
					defined $op->{reason} ? 'reason => ' . quote($op->{reason}) : ());
			},
			apply => sub {
				my ($c, $op, @rest) = @_;
				return apply_settle($c, $op, $verb, @rest);
			} };
	}
}

$VERB{ack_dequeue} = {
	idle => 4, tx => 3,
	make => sub {
		my ($c, $op) = @_;
		some_deliveries($c, $op, span($c, 1, 4)) or return 0;
		$op->{queues} = [ $op->{q} ];
		return make_dequeue($c, $op);
	},
	can => sub { return can_settle(@_) && can_dequeue(@_) },
	sql => sub {
		my ($c, $op) = @_;
		my @d = refs_of($c, $op);
		return "SELECT $DELIVERY FROM mq.ack_dequeue(" . join(', ', quote($op->{q}), array_sql('bigint', map { $_->{id} } @d),
			array_sql('bigint', map { $_->{receipt} } @d), dequeue_args($op)) . ') m';
	},
	apply => sub {
		my ($c, $op, $res, $t0, $t1) = @_;
		return wrong_error($res) if $res->{err};
		my $q = queue($c, $op->{q});
		touch($c, tx_of($c, $op), $op->{q});
		$c->{model}->settle(tx_of($c, $op), $q, $_->{m}, 'ack', t0 => $t0, t1 => $t1) foreach current_of($c, $op);
		return deliver($c, $op, $res->{rows}, $t0, $t1);
	} };

# ------------------------------------------------- rows, by their owner

# Messages of a queue that this session sees.
sub visible
{
	my ($q, $tx) = @_;
	return grep { (!$_->{ins} || $tx && $_->{ins} == $tx) && !($_->{del} && $tx && $_->{del} == $tx) } @{ $q->{msgs} };
}

sub some_messages
{
	my ($c, $op, $n) = @_;
	$op->{q} = some_queue($c);
	my @m = grep { !$_->{ins} && defined $_->{id} } visible(queue($c, $op->{q}), tx_of($c, $op));
	return unless @m;
	$op->{tags} = [ uniq map { pick($c, @m)->{tag} } 1 .. $n ];
	return 1;
}

sub tagged
{
	my ($c, $op) = @_;
	my $q = queue($c, $op->{q});
	return map { my $t = $_; first { $_->{tag} eq $t && !$_->{ins} && defined $_->{id} } @{ $q->{msgs} } } @{ $op->{tags} };
}

sub can_write
{
	my ($c, $op) = @_;
	my $tx = tx_of($c, $op);
	return 0 unless plain_ok($c, $op) && usable($c, $op, $op->{q});
	my @m = tagged($c, $op);
	return 0 if !@m || grep { !$_ } @m;
	return !grep { $_->{lock} || $_->{del} || $_->{mem} || $_->{dying} || $_->{lease} && $_->{lease}{settler} } @m;
}

sub ids { return array_sql('bigint', map { $_->{id} } @_) }

sub apply_delete
{
	my ($c, $op, $res, $t0, $t1) = @_;
	return wrong_error($res) if $res->{err};
	my @m = tagged($c, $op);
	my $got = $op->{k} eq 'delete' ? $res->{rows}[0][0] : $res->{n};
	return "$got were deleted, not " . @m if $got != @m;
	touch($c, tx_of($c, $op), $op->{q});
	Model::delete_row(tx_of($c, $op), queue($c, $op->{q}), $_) foreach @m;
	return;
}

$VERB{delete} = {
	idle => 1, tx => 1, settled => 1, make => sub { my ($c, $op) = @_; some_messages($c, $op, span($c, 1, 3)) }, can => \&can_write,
	sql => sub { my ($c, $op) = @_; return 'SELECT mq.delete(' . quote($op->{q}) . ', ' . ids(tagged($c, $op)) . ')' },
	apply => \&apply_delete };
$VERB{delete_sql} = {
	idle => 1, tx => 1.5, settled => 1, make => sub { my ($c, $op) = @_; some_messages($c, $op, 1) }, can => \&can_write,
	sql => sub { my ($c, $op) = @_; return qq{DELETE FROM mq."q_$op->{q}" WHERE id = ANY (} . ids(tagged($c, $op)) . ')' },
	apply => \&apply_delete };
$VERB{update} = {
	idle => 2, tx => 3, settled => 1,
	make => sub {
		my ($c, $op) = @_;
		some_messages($c, $op, 1) or return 0;
		$op->{set}{prio} = span($c, 0, 9) if chance($c, 0.4);
		$op->{set}{ready} = chance($c, 0.3) ? undef : pick($c, -60, 60, 1200) if chance($c, 0.4);
		$op->{set}{exp} = chance($c, 0.3) ? undef : pick($c, 60, 3600) if chance($c, 0.3);
		$op->{set}{headers} = { c => pick($c, 'a', 'b') } if chance($c, 0.3);
		return !!$op->{set};
	},
	can => sub { my ($c, $op) = @_; return can_write($c, $op) && !grep { $_->{xd} && exists $op->{set}{headers} } tagged($c, $op) },
	sql => sub {
		my ($c, $op) = @_;
		my $s = $op->{set};
		my $time = sub { my ($by) = @_; return defined $by ? sprintf('to_timestamp(%.6f)', $op->{from} = $c->{now} + $by) : 'NULL' };
		my @set;
		push @set, "priority = $s->{prio}" if exists $s->{prio};
		push @set, 'headers = ' . quote(json($s->{headers})) if exists $s->{headers};
		foreach my $t ('ready', 'exp')
		{
			next unless exists $s->{$t};
			$op->{time}{$t} = defined $s->{$t} ? sprintf('%.6f', $c->{now} + $s->{$t}) : undef;
			push @set, ($t eq 'ready' ? 'ready_at' : 'expires_at') . ' = ' . (defined $s->{$t} ? "to_timestamp($op->{time}{$t})" : 'NULL');
		}
		return qq(UPDATE mq."q_$op->{q}" SET ) . join(', ', @set) . ' WHERE id = ' . (tagged($c, $op))[0]{id};
	},
	apply => sub {
		my ($c, $op, $res, $t0, $t1) = @_;
		return wrong_error($res) if $res->{err};
		return "$res->{n} rows updated, not 1" if $res->{n} != 1;
		my %new;
		foreach my $k (keys %{ $op->{set} })
		{
			$new{$k} = exists $op->{time}{$k} ? (defined $op->{time}{$k} ? [ map { $op->{time}{$k} + $_ } -1e-5, 1e-5 ] : undef) : $op->{set}{$k};
		}
		touch($c, tx_of($c, $op), $op->{q});
		Model::lock_row(tx_of($c, $op), queue($c, $op->{q}), (tagged($c, $op))[0], 0, \%new);
		return;
	} };
$VERB{lock} = {
	idle => 0, tx => 3, settled => 1, make => sub { my ($c, $op) = @_; some_messages($c, $op, span($c, 1, 2)) }, can => \&can_write,
	sql => sub {
		my ($c, $op) = @_;
		return qq{SELECT id FROM mq."q_$op->{q}" WHERE id = ANY (} . ids(tagged($c, $op)) . ') FOR UPDATE';
	},
	apply => sub {
		my ($c, $op, $res) = @_;
		return wrong_error($res) if $res->{err};
		return @{ $res->{rows} } . ' rows locked' if @{ $res->{rows} } != tagged($c, $op);
		touch($c, tx_of($c, $op), $op->{q});
		Model::lock_row(tx_of($c, $op), queue($c, $op->{q}), $_, 1) foreach tagged($c, $op);
		return;
	} };

sub unleased
{
	my ($c, $op) = @_;
	my $tx = tx_of($c, $op);
	return grep { !$_->{lease} && !held_by_other($_, $tx) } visible(queue($c, $op->{q}), $tx);
}

# Nothing may be on its way to the dead letters, or known to memory only.
sub at_rest { my ($q) = @_; return !grep { $_->{mem} || $_->{dying} } @{ $q->{msgs} } }

$VERB{purge} = {
	idle => 0.15, tx => 0.2, settled => 1, make => sub { my ($c, $op) = @_; $op->{q} = some_queue($c) },
	can => sub { my ($c, $op) = @_; return plain_ok($c, $op) && usable($c, $op, $op->{q}) && at_rest(queue($c, $op->{q})) },
	sql => sub { my ($c, $op) = @_; return 'SELECT mq.purge(' . quote($op->{q}) . ')' },
	apply => sub {
		my ($c, $op, $res) = @_;
		return wrong_error($res) if $res->{err};
		my @m = unleased($c, $op);
		return "$res->{rows}[0][0] purged, not " . @m if $res->{rows}[0][0] != @m;
		touch($c, tx_of($c, $op), $op->{q});
		Model::delete_row(tx_of($c, $op), queue($c, $op->{q}), $_) foreach @m;
		return;
	} };

# Where a dead message goes back to.
sub origin
{
	my ($c, $op, $m) = @_;
	return $op->{target} if defined $op->{target};
	my $name = $m->{xd} ? $m->{xd}[0][0] : undef;
	my $q = defined $name ? queue($c, $name) : undef;
	return $q && $q->{opt}{dead_letter} eq $op->{q} ? $name : undef;
}

sub redriven
{
	my ($c, $op) = @_;
	my @m = sort { $a->{id} <=> $b->{id} } grep { defined $_->{id} && defined origin($c, $op, $_) } unleased($c, $op);
	$#m = $op->{max} - 1 if defined $op->{max} && @m > $op->{max};
	return @m;
}

$VERB{redrive} = {
	idle => 1.5, tx => 1, settled => 1,
	make => sub {
		my ($c, $op) = @_;
		$op->{q} = pick($c, grep { /_dead$/ } sort keys %{ $c->{model}{q} });
		$op->{max} = span($c, 1, 4) if chance($c, 0.5);
		$op->{target} = some_queue($c) if chance($c, 0.2);
		return 1;
	},
	can => sub {
		my ($c, $op) = @_;
		return 0 unless plain_ok($c, $op) && usable($c, $op, $op->{q}) && at_rest(queue($c, $op->{q}));
		return 0 if defined $op->{target} && ($op->{target} eq $op->{q} || !queue($c, $op->{target}));
		return 0 if grep { !defined $_->{id} } visible(queue($c, $op->{q}), tx_of($c, $op));
		my %n;
		$n{ origin($c, $op, $_) }++ foreach redriven($c, $op);
		foreach my $name (keys %n)
		{
			my $o = queue($c, $name)->{opt};
			return 0 if !usable($c, $op, $name) || defined $o->{max_length} && $o->{overflow} eq 'drop_head'
			  || $o->{ordered} && keys %n > 1;
		}
		return 1;
	},
	sql => sub {
		my ($c, $op) = @_;
		return 'SELECT mq.redrive(' . join(', ', quote($op->{q}), defined $op->{max} ? "max => $op->{max}" : (),
			defined $op->{target} ? 'target => ' . quote($op->{target}) : ()) . ')';
	},
	apply => sub {
		my ($c, $op, $res, $t0, $t1) = @_;
		my $tx = tx_of($c, $op);
		my @m = redriven($c, $op);
		my (%n, @want);
		$n{ origin($c, $op, $_) }++ foreach @m;
		foreach my $name (keys %n)
		{
			push @want, '53400' unless Model::fits(queue($c, $name), $n{$name});
			push @want, '22023' if queue($c, $name)->{opt}{ordered} && grep { $_->{prio} } @m;
		}
		# with two reasons to fail it may be either
		return wrong_error($res, (first { $_ eq ($res->{err} // '') } @want) // $want[0]) if $res->{err} || @want;
		return "$res->{rows}[0][0] redriven, not " . @m if $res->{rows}[0][0] != @m;
		touch($c, $tx, $op->{q}, keys %n);
		foreach my $m (@m)
		{
			my $to = queue($c, origin($c, $op, $m));
			Model::delete_row($tx, queue($c, $op->{q}), $m);
			Model::insert($tx, $to, { %$m{qw(tag body headers prio key xd)}, id => undef, attempts => 0 }, 1);
		}
		return;
	} };

$VERB{replay} = {
	idle => 0.6, tx => 0, settled => 1,
	make => sub {
		my ($c, $op) = @_;
		$op->{q} = pick($c, (grep { queue($c, $_)->{has_archive} } sort keys %{ $c->{model}{q} }), some_queue($c));
		$op->{marks} = span($c, 1, 3);
		return 1;
	},
	can => sub {
		my ($c, $op) = @_;
		return 0 unless usable($c, $op, $op->{q});
		my $q = queue($c, $op->{q});
		return 0 if defined $q->{opt}{max_length} && $q->{opt}{overflow} eq 'drop_head';
		$op->{since} = $c->{marks}[ -$op->{marks} ] // 0;
		return (grep { $_->{at}[0] >= $op->{since} } @{ $q->{archive} }) <= 20;
	},
	sql => sub { my ($c, $op) = @_; return sprintf 'SELECT mq.replay(%s, to_timestamp(%.6f))', quote($op->{q}), $op->{since} },
	apply => sub {
		my ($c, $op, $res, $t0, $t1) = @_;
		my $tx = tx_of($c, $op);
		my $q = queue($c, $op->{q});
		return wrong_error($res, '42704') unless $q->{has_archive};
		my @m = grep { $_->{at}[0] >= $op->{since} } @{ $q->{archive} };
		my @want;
		push @want, '22023' if $q->{opt}{ordered} && grep { $_->{prio} } @m;
		push @want, '53400' unless Model::fits($q, scalar @m);
		return wrong_error($res, (first { $_ eq ($res->{err} // '') } @want) // $want[0]) if $res->{err} || @want;
		return "$res->{rows}[0][0] replayed, not " . @m if $res->{rows}[0][0] != @m;
		foreach my $m (@m)
		{
			my $new = row_of($q, { prio => $m->{prio} }, $m, undef, $t0, $t1);
			@$new{qw(body xd)} = @$m{qw(body xd)};
			delete $new->{dedup};
			Model::insert($tx, $q, $new, 1);
		}
		return;
	} };

# --------------------------------------------------------------- looking

sub state_of
{
	my ($m, $now) = @_;
	return 'leased' if $m->{lease};
	return 'expired' if $m->{exp} && $m->{exp}[1] <= $now;
	return $m->{ready} && $m->{ready}[0] > $now ? 'delayed' : 'ready';
}

$VERB{browse} = {
	idle => 1, tx => 1, settled => 1, make => sub { my ($c, $op) = @_; $op->{q} = some_queue($c) },
	can => sub { my ($c, $op) = @_; return plain_ok($c, $op) && usable($c, $op, $op->{q}) },
	sql => sub { my ($c, $op) = @_; return "SELECT $TAG, m.state, m.attempt FROM mq.browse(" . quote($op->{q}) . ', 10000) m' },
	apply => sub {
		my ($c, $op, $res, $t0, $t1) = @_;
		return wrong_error($res) if $res->{err};
		my $tx = tx_of($c, $op);
		my (%want, %got);
		foreach my $m (visible(queue($c, $op->{q}), $tx))
		{
			next if $m->{dying};
			# our own changes are seen before they count
			my $own = $m->{lock} && $m->{lock} == $tx && !$m->{lockonly};
			$want{ "$m->{tag} " . ($own ? 'ours' : state_of($m, $t0) . ' ' . ($m->{attempts} + 1)) }++;
		}
		my %ours = map { $_->{tag} => 1 } grep { $_->{lock} && $_->{lock} == $tx && !$_->{lockonly} } visible(queue($c, $op->{q}), $tx);
		my %dying = map { $_->{tag} => 1 } grep { $_->{dying} } @{ queue($c, $op->{q})->{msgs} };
		foreach my $r (@{ $res->{rows} })
		{
			next if $dying{ $r->[0] };
			$got{ $ours{ $r->[0] } ? "$r->[0] ours" : "$r->[0] $r->[1] $r->[2]" }++;
		}
		my $a = join ', ', map { "$_ x$want{$_}" } sort keys %want;
		my $b = join ', ', map { "$_ x$got{$_}" } sort keys %got;
		return $a eq $b ? undef : "expected: $a; got: $b";
	} };
$VERB{status} = {
	idle => 1, tx => 1, settled => 1,
	make => sub {
		my ($c, $op) = @_;
		my $q = queue($c, $op->{q} = some_queue($c));
		if (@{ $q->{archive} } && chance($c, 0.3)) { $op->{archived} = pick($c, @{ $q->{archive} })->{id}; return 1 }
		return some_messages($c, $op, 1);
	},
	can => sub {
		my ($c, $op) = @_;
		return 0 unless plain_ok($c, $op) && usable($c, $op, $op->{q});
		return !!grep { $_->{id} == $op->{archived} } @{ queue($c, $op->{q})->{archive} } if $op->{archived};
		my ($m) = tagged($c, $op);
		return $m && !$m->{del} && !$m->{lock} && !$m->{dying};
	},
	sql => sub {
		my ($c, $op) = @_;
		return 'SELECT mq.status(' . quote($op->{q}) . ', ' . ($op->{archived} // (tagged($c, $op))[0]{id}) . ')';
	},
	apply => sub {
		my ($c, $op, $res, $t0, $t1) = @_;
		return wrong_error($res) if $res->{err};
		my $want = $op->{archived} ? 'archived' : state_of((tagged($c, $op))[0], $t0);
		my $got = $res->{rows}[0][0] // 'NULL';
		return $got eq $want ? undef : "status is $got, not $want";
	} };

# ---------------------------------------------------------------- owners

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

# -------------------------------------------------- sessions, transactions

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
	can => sub { my ($c, $op) = @_; return usable($c, $op, $op->{q}) && !queue($c, $op->{q})->{ddl} },
	sql => sub { my ($c, $op) = @_; (my $t = $BAD[ $op->{bad} ][1]) =~ s/%s/$op->{q}/; return $t },
	apply => sub { my ($c, $op, $res) = @_; touch($c, tx_of($c, $op), $op->{q}); return wrong_error($res, $BAD[ $op->{bad} ][2]) } };

# ------------------------------------------------------------- the next one

# A random operation number n; undef if none was found.
sub next_op
{
	my ($c, $n, $sessions) = @_;
	foreach my $try (1 .. 60)
	{
		my $s = span($c, 1, $sessions);
		my %op = (n => $n, s => $s);
		my $tx = $c->{model}->tx($s);
		if ($c->{busy}{$s})
		{
			next unless $c->{busy}{$s}{k} eq 'dequeue_wait' && chance($c, 0.05);
			return { %op, k => 'cancel' };
		}
		my $kind = $tx ? 'tx' : 'idle';
		my @verbs = sort keys %VERB;
		@verbs = ('rollback', 'rollback_to', 'commit') if $tx && $tx->{failed};
		my $at = $c->{rnd}->() * sum0(map { $VERB{$_}{$kind} } @verbs);
		my $k = first { ($at -= $VERB{$_}{$kind}) < 0 } @verbs;
		next unless $k;
		$op{k} = $k;
		$op{rest} = chance($c, 0.6);
		next unless $VERB{$k}{make}->($c, \%op);
		next unless allowed($c, \%op);
		return \%op;
	}
	return;
}

# Whether it can be done now.
sub allowed
{
	my ($c, $op) = @_;
	my $tx = tx_of($c, $op);
	return 1 if $op->{k} eq 'compare';
	return 0 if $c->{busy}{ $op->{s} } && $op->{k} ne 'cancel';
	return 0 if $tx && $tx->{failed} && $op->{k} !~ /^(rollback|rollback_to|commit|session_end|time_passes)$/;
	return 0 if $tx ? !$VERB{ $op->{k} }{tx} && $op->{k} !~ /^(time_passes|cancel)$/ : !$VERB{ $op->{k} }{idle} && $op->{k} !~ /^(cancel|create_queue)$/;
	return $VERB{ $op->{k} }{can}->($c, $op);
}

1;

# Dequeue, in all its ways.
package Verbs;

use strict;
use warnings;

use List::Util qw(max first uniq);

our %VERB;

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
			my $until = $op->{session} || $op->{auto_ack} ? undef : [ ($op->{since} // $t0) + $dur, $t1 + $dur ];
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

1;

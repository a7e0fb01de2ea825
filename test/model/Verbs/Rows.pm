# Rows as their owner and others see and write them.
package Verbs;

use strict;
use warnings;

use List::Util qw(first uniq);

our (%VERB, $TAG, $DELIVERY);

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
			my $to = queue($c, $name);
			return 0 if !usable($c, $op, $name) || Model::drops($to) || $to->{opt}{ordered} && keys %n > 1;
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
		}
		# with two reasons to fail it may be either
		return wrong_error($res, (first { $_ eq ($res->{err} // '') } @want) // $want[0]) if $res->{err} || @want;
		return "$res->{rows}[0][0] redriven, not " . @m if $res->{rows}[0][0] != @m;
		touch($c, $tx, $op->{q}, keys %n);
		foreach my $m (@m)
		{
			my $to = queue($c, origin($c, $op, $m));
			my $is = Model::updated($m);
			Model::delete_row($tx, queue($c, $op->{q}), $m);
			Model::insert($tx, $to, { %$is{qw(tag body headers key xd)}, prio => $to->{opt}{ordered} ? 0 : $is->{prio}, id => undef, attempts => 0 }, 1);
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
		return 0 if Model::drops($q);
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
		push @want, '53400' unless Model::fits($q, scalar @m);
		return wrong_error($res, (first { $_ eq ($res->{err} // '') } @want) // $want[0]) if $res->{err} || @want;
		return "$res->{rows}[0][0] replayed, not " . @m if $res->{rows}[0][0] != @m;
		foreach my $m (@m)
		{
			my $new = row_of($q, { prio => $q->{opt}{ordered} ? 0 : $m->{prio} }, $m, undef, $t0, $t1);
			@$new{qw(body xd)} = @$m{qw(body xd)};
			delete $new->{dedup};
			Model::insert($tx, $q, $new, 1);
		}
		return;
	} };

# ---------------------------------------------------------------- looking
sub state_of
{
	my ($m, $now) = @_;
	return 'leased' if $m->{lease};
	return 'expired' if $m->{exp} && $m->{exp}[1] <= $now;
	return $m->{ready} && $m->{ready}[0] > $now ? 'delayed' : 'ready';
}

# A failure that nobody can write, the row being held, is due a second after each
# time somebody has come upon it.
sub kept_back { my ($m) = @_; return $m->{mem} && ($m->{lock} || $m->{del}) }

$VERB{browse} = {
	idle => 1, tx => 1, settled => 1, make => sub { my ($c, $op) = @_; $op->{q} = some_queue($c) },
	can => sub { my ($c, $op) = @_; return plain_ok($c, $op) && usable($c, $op, $op->{q}) },
	sql => sub { my ($c, $op) = @_; return "SELECT $TAG, m.state, m.attempt FROM mq.browse(" . quote($op->{q}) . ', 10000) m' },
	apply => sub {
		my ($c, $op, $res, $t0, $t1) = @_;
		return wrong_error($res) if $res->{err};
		my $tx = tx_of($c, $op);
		my (%want, %got);
		touch($c, $tx, $op->{q});
		foreach my $m (visible(queue($c, $op->{q}), $tx))
		{
			next if $m->{dying};
			# our own changes are seen before they count
			my $own = $m->{lock} && $m->{lock} == $tx && !$m->{lockonly} || kept_back($m);
			$want{ "$m->{tag} " . ($own ? 'ours' : state_of($m, $t0) . ' ' . ($m->{attempts} + 1)) }++;
		}
		my %ours = map { $_->{tag} => 1 } grep { $_->{lock} && $_->{lock} == $tx && !$_->{lockonly} || kept_back($_) } visible(queue($c, $op->{q}), $tx);
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
		touch($c, tx_of($c, $op), $op->{q});
		my $want = $op->{archived} ? 'archived' : state_of((tagged($c, $op))[0], $t0);
		my $got = $res->{rows}[0][0] // 'NULL';
		return $got eq $want ? undef : "status is $got, not $want";
	} };

1;

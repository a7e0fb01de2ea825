# The judge's part for what queues with options promise, and the verbs that came with
# them. check has read the ledgers and worked out the deliveries' lives; here they
# are held against each promise, and only what is certain counts:
#
#	ordered			from when a consumer has a message of a key in hand until the first
#					thing that may have taken it from him, nobody has another of the key;
#					one that came back is not overtaken, and a lower id that was committed
#					before the first delivery of a higher one goes first
#	max_in_flight	so many certain lives at one moment at most
#	rate_limit		between two moments, without the server's end in between, at most
#					rate x seconds + one burst of deliveries asked for after the one and
#					in hand before the other; a restart fills the bucket
#	dedup_id		one message for each id returned; two enqueues with one dedup_id
#					within the window, or while the message is certainly there, return
#					one id, and none returns that of a message that is out of the
#					window, or gone
#	ttl				no delivery of a statement that began after expires_at by mq's clock;
#					none after the death, no death before the time
#	max_length		no snapshot shows more rows
#	retain			what was acked stands in the archive once, nothing else does;
#					a replay copies what a snapshot shows
#	dequeue_any		one receipt, the queues in the order given; and where one process has
#					two queues for itself, all that must be there comes
#	match			what comes has it
#	status, browse	a message that was there before and after is there, one that
#					somebody has in hand is leased
#
# An id tells where a message stands: a redriven one has a new id.

package Options;

use strict;
use warnings;

my $INF = 9**9**9;
my $SLACK = 0.02;    # the wall clock is not the steady one

sub new
{
	my ($class, %c) = @_;
	my $self = bless {%c}, $class;
	for my $d (sort { $a->{t} <=> $b->{t} } values %{ $c{delivery} })
	{
		push @{ $self->{of}{ $d->{q} } }, $d;
		push @{ $self->{at}{"$d->{q} $d->{id}"} }, $d;
	}
	for my $r (@{ $c{other}{sent} // [] })
	{
		for my $m (@{ $r->{m} })
		{
			my ($token, $id) = @$m;
			my $sent = { m => $c{message}{$token}, id => $id, q => $r->{q}, t0 => $r->{t0}, t => $r->{t}, x => $c{tx}{ $r->{tx} } };
			$self->{sent}{"$r->{q} $id"} //= [];
			push @{ $self->{sent}{"$r->{q} $id"} }, $sent;
		}
	}
	for my $q (keys %{ $c{final}{archive} // {} })
	{
		$self->{archive}{$q} = {};
		push @{ $self->{archive}{$q}{ $_->[0] // '' } }, $_->[1] for @{ $c{final}{archive}{$q} };
	}
	return $self;
}

sub violation { my ($self, @what) = @_; return $self->{violation}->(@what) }
sub did { my ($self, $what) = @_; return $self->{did}->($what) }
sub jumped { my ($self, $from, $to) = @_; return scalar grep { $_->[0] < $to && $_->[1] > $from } @{ $self->{jumps} } }
sub deliveries { my ($self, $q) = @_; return @{ $self->{of}{$q} // [] } }

# Since when a message was certainly committed, by those who sent it.
sub known_in
{
	my ($self, $place) = @_;
	my $in = $INF;
	for my $s (@{ $self->{sent}{$place} // [] })
	{
		next if !$s->{m} || $s->{m}{undo} || ($s->{x}{heard} // '') ne 'committed' || $s->{x}{gid};
		$in = $s->{x}{t} if $s->{x}{t} < $in;
	}
	return $in;
}

# Whether a row was certainly there, committed, from one time to another.
sub was_there
{
	my ($self, $place, $from, $to) = @_;
	my @d = @{ $self->{at}{$place} // [] };
	return 0 unless @d && ((grep { $_->{t} <= $from } @d) || $self->known_in($place) <= $from);
	for my $d (@d)
	{
		return 1 if $d->{t0} >= $to;
		return 1 if grep { $_->{ok} && $_->{o} ne 'rolledback' && $_->{t0} >= $to } @{ $d->{settles} // [] };
	}
	return 0;
}

# ---------------------------------------------------------------- order

sub ordered
{
	my ($self, $q) = @_;
	my %key;
	for my $d ($self->deliveries($q))
	{
		my $k = ($self->{message}{ $d->{tok} // '' } // {})->{k};
		$self->violation('key', "message $d->{tok} was delivered with another key") if ($k // '-') ne ($d->{k} // '-');
		push @{ $key{$k} }, $d if defined $k;
	}
	for my $k (sort keys %key)
	{
		my @d = @{ $key{$k} };
		# who has had it longest of those before
		my $last;
		for my $e (@d)
		{
			my @with = grep { $_->{t} == $e->{t} && $_ != $e } @d;
			for my $d (grep { defined } $last, @with)
			{
				$self->violation('key held twice', "key $k: $e->{name} of $e->{tok} while $d->{name} had $d->{tok}")
				  if $d->{id} != $e->{id} && (($e->{t} < $d->{held} && $e->{held} > $e->{t}) || ($e->{t0} > $d->{t} && $e->{t} < $d->{held}));
			}
			$self->did('key waited') if $last && $last->{id} != $e->{id} && $self->known_in("$q $e->{id}") < $last->{held};
			$last = $e if !$last || $e->{held} > $last->{held};
		}
		my (%first, %last);
		for my $d (@d)
		{
			$first{ $d->{id} } //= $d;
			$last{ $d->{id} } = $d if !$last{ $d->{id} } || $d->{t0} > $last{ $d->{id} }{t0};
		}
		for my $id (sort { $a <=> $b } keys %first)
		{
			my $in = $self->known_in("$q $id");
			for my $e (grep { $_->{id} > $id && $_->{att} == 1 && $in < $_->{t0} && $last{$id}{t0} > $_->{t} } values %first)
			{
				$self->violation('overtaken', "key $k: $e->{name} of $e->{tok} ($e->{id}) came before $last{$id}{name} of $last{$id}{tok} ($id)");
			}
		}
	}
	return;
}

# --------------------------------------------------------------- limits

sub limited
{
	my ($self, $q) = @_;
	my ($until) = map { $_->{t} } grep { $_->{q} eq $q } @{ $self->{other}{unlimited} // [] };
	my @d = grep { !defined $until || $_->{t} < $until } $self->deliveries($q);
	my $most = $self->{final}{max_in_flight}{$q};
	if ($most)
	{
		my @steps = map { ([ $_->{t}, 1, $_ ], [ $_->{held}, -1 ]) } grep { $_->{held} > $_->{t} } @d;
		my $n = 0;
		for my $s (sort { $a->[0] <=> $b->[0] || $a->[1] <=> $b->[1] } @steps)
		{
			$n += $s->[1];
			$self->did('max_in_flight reached') if $n == $most && $s->[1] > 0;
			$self->violation('max_in_flight', "$n messages of $q at once, with $s->[2]{name}") if $n > $most && $s->[1] > 0;
		}
	}
	my $rate = $self->{final}{rate_limit}{$q} or return;
	my $burst = $rate > 1 ? $rate : 1;
	my %of;    # by how often the server had ended before
	for my $d (@d)
	{
		next if grep { $_->[0] < $d->{t} && $_->[1] > $d->{t0} } @{ $self->{stops} };
		push @{ $of{ scalar grep { $_->[0] <= $d->{t0} } @{ $self->{stops} } } }, $d;
	}
	for my $part (values %of)
	{
		for my $from (map { $_->{t0} } @$part)
		{
			my $n = 0;
			for my $d (grep { $_->{t0} >= $from } @$part)
			{
				$n++;
				my $may = $rate * ($d->{t} - $from) + $burst;
				$self->did('rate_limit reached') if $n > $may - 3;
				next if $n <= $may + 0.001;
				$self->violation('rate_limit', sprintf('%d messages of %s in %.3f s', $n, $q, $d->{t} - $from));
				last;
			}
		}
	}
	return;
}

sub lengths
{
	my ($self) = @_;
	for my $s (@{ $self->{other}{sample} // [] })
	{
		for my $q (sort keys %{ $s->{rows} // {} })
		{
			my $most = $self->{final}{max_length}{$q} or next;
			$self->did('max_length reached') if $s->{rows}{$q} == $most;
			$self->violation('max_length', "$s->{rows}{$q} rows of $q, which takes $most, at $s->{t}") if $s->{rows}{$q} > $most;
		}
		for my $q (sort grep { $s->{twice}{$_} } keys %{ $s->{twice} // {} })
		{
			$self->violation('dedup', "a dedup_id of $q stands in several rows, at $s->{t}");
		}
	}
	return;
}

# ---------------------------------------------------------------- dedup

# Which tokens are no messages, since their dedup_id was known; $trace says whether
# there is one of a token. Called once, before the messages are counted.
sub same
{
	my ($self, $trace) = @_;
	my (%same, %group, %by_id);
	for my $place (keys %{ $self->{sent} // {} })
	{
		my @m = sort { $a->{t0} <=> $b->{t0} } grep { $_->{m} && defined $_->{m}{dd} && $self->{came_in}->($_->{m}) ne 'rolledback' } @{ $self->{sent}{$place} };
		next unless @m;
		my @there = grep { $trace->($_->{m}{tok}) } @m;
		$self->violation('dedup', "messages $there[0]{m}{tok} and $there[1]{m}{tok} are both $place") if @there > 1;
		my $g = { place => $place, id => $m[0]{id}, q => $m[0]{q}, dd => $m[0]{m}{dd}, m => \@m, first => $there[0] };
		push @{ $group{"$g->{q} $g->{dd}"} }, $g;
	}
	# Some were sent by a statement whose answer nobody heard.
	for my $m (grep { defined $_->{dd} && $trace->($_->{tok}) } values %{ $self->{message} })
	{
		$by_id{"$m->{q} $m->{dd}"}++ if $self->{came_in}->($m) eq 'unknown';
	}
	for my $key (sort keys %group)
	{
		for my $g (@{ $group{$key} })
		{
			my $other = !$g->{first} && $by_id{$key};
			my ($first) = $g->{first} // $g->{m}[0];
			$same{ $_->{m}{tok} } = 1 for grep { $other || $_ != $first } @{ $g->{m} };
		}
		my ($q) = split / /, $key;
		my $window = $self->{final}{dedup}{$q} // next;
		$window ? $self->dedup_window($window / 1000, @{ $group{$key} }) : $self->dedup_present(@{ $group{$key} });
	}
	$self->did('dedup_id known') for keys %same;
	return %same;
}

# Remembered for a time.
sub dedup_window
{
	my ($self, $window, @g) = @_;
	for my $g (grep { $_->{first} } @g)
	{
		my $a = $g->{first};
		for my $b (map { $_->{first} } grep { $_->{first} && $_->{id} > $g->{id} } @g)
		{
			my ($from, $to) = ($a->{t0} < $b->{t0} ? $a->{t0} : $b->{t0}, $a->{t} > $b->{t} ? $a->{t} : $b->{t});
			$self->violation('dedup', "messages $a->{m}{tok} and $b->{m}{tok} came in with $g->{dd} within the window")
			  if $to - $from < $window - $SLACK && !$self->jumped($from, $to)
			  && $self->{came_in}->($a->{m}) eq 'committed' && $self->{came_in}->($b->{m}) eq 'committed';
		}
		for my $b (grep { $_ != $a } @{ $g->{m} })
		{
			$self->violation('dedup', "message $b->{m}{tok} is gone for $a->{m}{tok} with $g->{dd}, whose window was over")
			  if $b->{t0} > $a->{t} + $window + $SLACK && ($a->{x}{heard} // '') eq 'committed' && !$a->{x}{gid} && $a->{x}{t} < $b->{t0}
			  && !$self->jumped($a->{t0}, $b->{t});
		}
	}
	return;
}

# Remembered while the message is there.
sub dedup_present
{
	my ($self, @g) = @_;
	for my $g (@g)
	{
		my $gone = $INF;
		for my $s (map { $_->{acked} // () } @{ $self->{at}{ $g->{place} } // [] })
		{
			my $x = $s->{o} eq 'tx' ? $self->{tx}{ $s->{tx} } : undef;
			my $t = $x ? (($x->{heard} // '') eq 'committed' && !$x->{gid} ? $x->{t} : $INF) : $s->{o} eq 'committed' ? $s->{t} : $INF;
			$gone = $t if $t < $gone;
		}
		for my $b (@{ $g->{m} })
		{
			$self->violation('dedup', "message $b->{m}{tok} is gone for $g->{place}, which was acked before") if $b->{t0} > $gone;
		}
		for my $b (map { @{ $_->{m} } } grep { $_ != $g } @g)
		{
			$self->violation('dedup', "message $b->{m}{tok} came in as $b->{id}, with $g->{place} there")
			  if $self->was_there($g->{place}, $b->{t0}, $b->{t});
		}
	}
	return;
}

# ------------------------------------------------------- deaths, archive

sub may_die_as
{
	my ($self, $reason, $q) = @_;
	return $reason eq 'expired' ? exists $self->{final}{ttl}{$q} :
	  $reason eq 'maxlen' && grep { $_ eq $q } @{ $self->{final}{drop_head} // [] };
}

# What the steady clock showed when the server's wall clock showed this; undef if
# that cannot be told.
sub steady
{
	my ($self, $at) = @_;
	my @ahead = sort { $a <=> $b } map { $_->{wall} - $_->{t} } @{ $self->{other}{wall} // [] };
	return undef if !defined $at || !@ahead || $ahead[-1] - $ahead[0] > $SLACK / 2;
	my $t = $at - $ahead[0];
	for my $j (@{ $self->{jumps} })
	{
		my $u = $t - ($j->[2] // 0) / 1000;
		return undef if $u > $j->[0] - 1 && $u < $j->[1] + 1;
	}
	return $t;
}

# A message lies among the dead letters, for the last time since $at.
sub died
{
	my ($self, $m, $q, $reason, $at, @d) = @_;
	$self->did($reason) if ($reason // '') =~ /^(expired|maxlen)$/;
	my $t = $self->steady($at) // return;
	for my $d (grep { $_->{t0} > $t + $SLACK } @d)
	{
		$self->violation('after death', "message $m->{tok}: delivery $d->{name} came after it died as $reason");
	}
	return unless ($reason // '') eq 'expired' && $m->{q} eq $q && defined $self->{final}{ttl}{$q};
	my $ttl = $self->{final}{ttl}{$q};
	$ttl = $m->{ttl} if defined $m->{ttl} && $m->{ttl} < $ttl;
	$self->violation('expired early', "message $m->{tok} died " . sprintf('%.3f', $t - $m->{t}) . ' s after it was sent')
	  if $t < $m->{t} + $m->{due} + $ttl / 1000 - $SLACK && !$self->jumped($m->{t}, $t);
	return;
}

# A message's place in the archive: at least and at most so often there.
sub archived
{
	my ($self, $m, $least, $most) = @_;
	my $archive = $self->{archive}{ $m->{q} } or return;
	my $n = @{ delete $archive->{ $m->{tok} } // [] };
	$self->did('archived') if $n;
	$self->violation('archive', "message $m->{tok} is in the archive $n times" . ($most ? '' : ', and nobody acked it'))
	  if $n < $least || $n > $most;
	return;
}

sub archives
{
	my ($self) = @_;
	for my $q (sort keys %{ $self->{archive} // {} })
	{
		$self->violation('archive', "'$_' is in the archive of $q, and was no message of it") for sort keys %{ $self->{archive}{$q} };
	}
	for my $r (@{ $self->{other}{replayed} // [] })
	{
		my ($from, $copies) = map { join ' ', sort @$_ } @{$r}{qw(from copies)};
		$self->violation('replay', "of $from came $copies, told as $r->{said}") if $from ne $copies || $r->{said} != @{ $r->{from} };
	}
	return;
}

# ----------------------------------------------------- dequeues and looks

sub asks
{
	my ($self) = @_;
	for my $r (@{ $self->{ask} })
	{
		my $i = 0;
		my @d = map { $self->{delivery}{"$r->{n}:" . $i++} } @{ $r->{m} };
		my %receipts = map { $_->{r} => 1 } @d;
		$self->violation('receipts', "$r->{n} got receipts " . join(', ', sort keys %receipts)) if keys %receipts > 1;
		for my $d (@d)
		{
			my $m = $self->{message}{ $d->{tok} // '' } // {};
			$self->violation('match', "$d->{tok} came to $r->{n}, which wanted $r->{match}")
			  if defined $r->{match} && (($d->{g} // '') ne $r->{match} || ($m->{g} // '') ne $r->{match});
			$self->violation('late', "message $d->{tok} was delivered $d->{late} ms after its time, $d->{name}") if ($d->{late} // -1) > 0;
		}
		my $n = 0;
		my %place = map { $_ => $n++ } @{ $r->{any} // [] };
		for my $k (1 .. $#d)
		{
			$self->violation('queues', "$r->{n} got $d[$k]{tok} of $d[$k]{q} after $d[$k - 1]{tok} of $d[$k - 1]{q}")
			  if $r->{any} && ($place{ $d[$k]{q} } // -1) < ($place{ $d[ $k - 1 ]{q} } // -1);
		}
		$self->alone($r, \%place, @d) if $r->{all} && !$self->{final}{few_leases};
	}
	return;
}

# One who has queues for himself: what must have been there and did not come.
sub alone
{
	my ($self, $r, $order, @d) = @_;
	my $to = @d < $r->{all} ? 1 + keys %$order : $order->{ $d[-1]{q} };    # queues before that one are empty now
	for my $q (grep { $order->{$_} < $to } sort keys %$order)
	{
		for my $place (grep { /^\Q$q\E / } keys %{ $self->{at} })
		{
			my @all = @{ $self->{at}{$place} };
			my ($next) = grep { $_->{t0} > $r->{t} } @all;
			next if !$next || $next->{att} != 1 || $self->known_in($place) > $r->{t0};
			my $m = $self->{message}{ $next->{tok} } // next;
			next if defined $r->{match} && ($m->{g} // '') ne $r->{match};
			# it had come before, and was released
			next if grep { $_->{t0} <= $r->{t} && !released($_, $r->{t0}) } @all;
			$self->violation('passed over', "$r->{n} did not get $m->{tok} of $q, which came with $next->{name}");
		}
	}
	return;
}

sub released
{
	my ($d, $t) = @_;
	return scalar grep { $_->{verb} eq 'release' && $_->{ok} && $_->{o} eq 'committed' && $_->{t} <= $t } @{ $d->{settles} // [] };
}

sub looks
{
	my ($self) = @_;
	my @looks = (map { [ $_, { $_->{id} => $_->{said} }, 0 ] } @{ $self->{other}{status} // [] });
	push @looks, map { my $r = $_; [ $r, { map { $_->[0] => $_->[1] } @{ $r->{m} } }, @{ $r->{m} } < $r->{max} ] } @{ $self->{other}{browse} // [] };
	for my $l (@looks)
	{
		my ($r, $said, $all) = @$l;
		my @ids = $all ? map { /^\Q$r->{q}\E (\d+)$/ } keys %{ $self->{at} } : keys %$said;
		for my $id (@ids)
		{
			my $place = "$r->{q} $id";
			my $state = $said->{$id};
			$self->violation('look', "mq.$r->{k} said " . ($state // 'nothing') . " of $place, which was there, at $r->{t}")
			  if ($state // '') !~ /^(ready|delayed|leased|expired)$/ && $self->was_there($place, $r->{t0}, $r->{t});
			$self->violation('look', "mq.$r->{k} said $state of $place, which somebody had, at $r->{t}")
			  if defined $state && $state ne 'leased' && grep { $_->{t} <= $r->{t0} && $_->{held} >= $r->{t} } @{ $self->{at}{$place} // [] };
		}
	}
	return;
}

sub judge
{
	my ($self) = @_;
	$self->ordered($_) for @{ $self->{final}{ordered} // [] };
	$self->limited($_) for sort keys %{ { %{ $self->{final}{max_in_flight} // {} }, %{ $self->{final}{rate_limit} // {} } } };
	$self->lengths;
	$self->archives;
	$self->asks;
	$self->looks;
	return;
}

1;

# What mq promises, as lists in memory: queues of messages, leases, transactions
# that can be undone.  Shares no code with mq and knows nothing of cursors,
# lanes or workers.  Whoever runs an operation against a server tells the model
# (Verbs.pm), which says what may have come of it.
#
# Times are intervals [earliest, latest] in seconds since 1970, since the server
# reads its clock some time during a statement; the driver sees to it that no
# statement runs while one of them is being reached, so that what is due is never
# in doubt.  Where mq is free, the model has more than one answer:
#   - the jitter of a backoff: an interval, until the row says which time it is;
#   - a failed delivery is known to mq's memory first and written into the row
#     later, by the worker ("mem" below); both are right.
#
# A message is a hash:
#   tag id body headers xd prio key dedup ready exp attempts err   as in the row
#   ins    the transaction that has enqueued it and is open
#   lock   the transaction that has locked or updated the row; lockonly
#   del    the transaction that has deleted it
#   lease  who has it: receipt state(open|held) tx session dur deadline settler
#   mem    the last failure may not be in the row yet: what the row says then
#   dying  has to go to the dead letters: the reason; late: another has come up since
package Model;

use strict;
use warnings;

use List::Util qw(min max first);

# What this model falsely believes, to see that a run then fails:
#   lifo      what is fresh comes latest first
#   rollback  a rollback costs no attempt
#   release   a release does
our $FALSE_BELIEF = '';

our %ERROR = (
	abort => "the consumer's transaction rolled back",
	lease => 'the lease ended without an ack',
	session => "the consumer's session ended");

# is_written says whether the row of a message known to memory has meanwhile been
# written, so that the worker may have had it in hand.
sub new
{
	my ($class, $is_written) = @_;
	return bless { q => {}, tx => {}, prepared => {}, txn => 0, is_written => $is_written }, $class;
}

# ---------------------------------------------------------------- queues

our %DEFAULT = (
	lease => 30, max_attempts => 20, backoff => 1, backoff_limit => 3600, dead_letter => '%_dead',
	ttl => undef, max_length => undef, overflow => 'reject', ordered => 0, dedup_window => 300,
	retain => undef, unlogged => 0, max_in_flight => undef, rate_limit => undef);

sub create_queue
{
	my ($self, $name, %opt) = @_;
	my %o = (%DEFAULT, %opt);

	$o{dead_letter} =~ s/%/$name/g;
	$self->need_dead_letters($o{dead_letter});
	return $self->{q}{$name} = _queue($name, \%o);
}

# The queue for dead letters of this name is made where it is missing.
sub need_dead_letters
{
	my ($self, $name) = @_;
	$self->{q}{$name} //= _queue($name, { %DEFAULT, dead_letter => '', max_attempts => 0 }) if $name ne '';
}

sub _queue
{
	my ($name, $opt) = @_;
	return {
		name => $name, opt => $opt, msgs => [], archive => [], has_archive => defined $opt->{retain},
		dedup => {}, full => [ 0, 0 ], paused => 0, was => [] };
}

sub drop_queue { delete $_[0]{q}{ $_[1] } }

# ---------------------------------------------------------- transactions

# An open transaction is a list of what it did: what each becomes at commit and
# how it is undone.  level: how many savepoints were set by then.

sub begin
{
	my ($self, $s, $iso) = @_;
	return $self->{tx}{$s} = { n => ++$self->{txn}, s => $s, iso => $iso // 'rc', did => [], sp => [], touched => {} };
}

sub tx { $_[0]{tx}{ $_[1] } }

sub did
{
	my ($tx, $commit, $undo) = @_;
	push @{ $tx->{did} }, { level => scalar @{ $tx->{sp} }, commit => $commit, undo => $undo };
}

sub _commit_tx
{
	my ($tx, $t0, $t1) = @_;
	$_->{commit}->($t0, $t1) foreach @{ $tx->{did} };
	$tx->{did} = [];
}

sub undo
{
	my ($tx, $level, $t0, $t1) = @_;
	while (@{ $tx->{did} } && $tx->{did}[-1]{level} >= $level)
	{
		(pop @{ $tx->{did} })->{undo}->($t0, $t1);
	}
}

sub commit
{
	my ($self, $s, $t0, $t1) = @_;
	my $tx = delete $self->{tx}{$s} or return;
	_commit_tx($tx, $t0, $t1);
	$tx->{ended} = 'committed';
}

sub rollback
{
	my ($self, $s, $t0, $t1) = @_;
	my $tx = delete $self->{tx}{$s} or return;
	undo($tx, 0, $t0, $t1);
	$tx->{ended} = 'rolled back';
}

# A statement failed: the innermost (sub)transaction is undone at once.
sub failed
{
	my ($self, $s, $t0, $t1) = @_;
	my $tx = $self->{tx}{$s} or return;
	undo($tx, scalar @{ $tx->{sp} }, $t0, $t1);
	$tx->{failed} = 1;
}

sub savepoint { push @{ $_[0]->tx($_[1])->{sp} }, $_[2] }

sub _index_of
{
	my ($tx, $name) = @_;
	return first { $tx->{sp}[$_] eq $name } reverse 0 .. $#{ $tx->{sp} };
}

sub rollback_to
{
	my ($self, $s, $name, $t0, $t1) = @_;
	my $tx = $self->tx($s);
	my $i = _index_of($tx, $name);
	undo($tx, $i + 1, $t0, $t1);
	$#{ $tx->{sp} } = $i;
	$tx->{failed} = 0;
}

sub release_savepoint
{
	my ($self, $s, $name) = @_;
	my $tx = $self->tx($s);
	my $i = _index_of($tx, $name);
	$#{ $tx->{sp} } = $i - 1;
	$_->{level} = min($_->{level}, $i) foreach @{ $tx->{did} };
}

sub prepare
{
	my ($self, $s, $gid) = @_;
	my $tx = delete $self->{tx}{$s};
	$tx->{prepared} = 1;
	$self->{prepared}{$gid} = $tx;
	foreach my $m ($self->all_leased)
	{
		# a session that is gone by then cannot hold it
		my $l = $m->{lease};
		@$l{qw(session dur)} = (0, undef) if $l->{session} && $l->{state} eq 'open' && $l->{tx} == $tx;
	}
}

sub end_prepared
{
	my ($self, $gid, $committed, $t0, $t1) = @_;
	my $tx = delete $self->{prepared}{$gid};
	$committed ? _commit_tx($tx, $t0, $t1) : undo($tx, 0, $t0, $t1);
	$tx->{ended} = $committed ? 'committed' : 'rolled back';
}

sub open_tx { return (values %{ $_[0]{tx} }, values %{ $_[0]{prepared} }) }

# ------------------------------------------------------------- messages

sub remove
{
	my ($q, $m) = @_;
	@{ $q->{msgs} } = grep { $_ != $m } @{ $q->{msgs} };
	$m->{gone} = 1;
	$m->{lease} = undef;
}

sub all_leased
{
	my ($self) = @_;
	return grep { $_->{lease} } map { @{ $_->{msgs} } } values %{ $self->{q} };
}

sub insert
{
	my ($tx, $q, $m, $reserved) = @_;
	$m->{ins} = $tx;
	$m->{reserved} = $reserved && defined $q->{opt}{max_length};
	push @{ $q->{msgs} }, $m;
	did($tx, sub { $m->{ins} = undef }, sub { remove($q, $m) });
}

sub delete_row
{
	my ($tx, $q, $m) = @_;
	$m->{del} = $tx;
	did($tx, sub { remove($q, $m) }, sub { $m->{del} = undef });
}

sub lock_row
{
	my ($tx, $q, $m, $only, $change) = @_;
	$m->{lock} = $tx;
	$m->{lockonly} = $only;
	$m->{change} = $change;
	did($tx, sub {
			my ($t0, $t1) = @_;
			return if $m->{gone};
			@$m{qw(lock change)} = ();
			my %new = %{ $change // {} };
			# it comes after a failure meanwhile: another time than the row had is when
			# it is due; who ends a prepared one knows the row only, and goes by it if it
			# says later
			if ($m->{mem} && exists $new{ready})
			{
				my ($was, $now) = ($m->{mem}{ready}, delete $new{ready});
				my $other = $tx->{prepared} ? $now && $now->[0] > $t1
				  : !!$was != !!$now || $was && ($was->[0] > $now->[1] || $was->[1] < $now->[0]);
				$m->{mem}{ready} = $now;
				$new{ready} = $now // [ $t0, $t1 ] if $other;
			}
			@$m{ keys %new } = values %new;
		}, sub { @$m{qw(lock change)} = () });
}

# A message as the transaction sees it that has updated it.
sub updated { my ($m) = @_; return { %$m, %{ $m->{change} // {} } } }

sub claim
{
	my ($self, $tx, $q, $m, %l) = @_;
	my $lease = $m->{lease} = { %l, state => 'open', tx => $tx };

	did($tx,
		sub {
			my ($t0, $t1) = @_;
			hold($q, $lease, $t0, $t1) if _has($m, $lease) && !$lease->{settler} && $lease->{state} eq 'open';
		},
		sub {
			my ($t0, $t1) = @_;
			fail($q, $m, 'abort', $t0, $t1) if _has($m, $lease) && $lease->{state} eq 'open';
		});
	return $lease;
}

sub _has { return !$_[0]{gone} && $_[0]{lease} && $_[0]{lease} == $_[1] }

sub hold
{
	my ($q, $l, $t0, $t1) = @_;
	my $dur = $l->{dur} // $q->{opt}{lease};
	$l->{state} = 'held';
	$l->{tx} = undef;
	$l->{deadline} = $l->{session} ? undef : [ $t0 + $dur, $t1 + $dur ];
}

# A delivery failed; attempts and time are the message's from now on, though
# the row may not say so yet.
sub fail
{
	my ($q, $m, $why, $t0, $t1) = @_;
	my ($lo, $hi) = $why eq 'session' ? (0, 0) : backoff($q, $m->{attempts} + 1);

	$m->{mem} //= { attempts => $m->{attempts}, ready => $m->{ready}, err => $m->{err} };
	$m->{lease} = undef;
	$m->{attempts}++ unless $FALSE_BELIEF eq 'rollback' && $why eq 'abort';
	$m->{err} = $ERROR{$why};
	$m->{ready} = [ $t0 + $lo, $t1 + $hi ];
	$m->{dying} = 'attempts' if spent($q, $m->{attempts});
	$m->{dying} = 'expired' if expired($m, $t1);
}

# Whether it has to go for its age; if somebody holds its row, he may give it more time.
sub expired { my ($m, $now) = @_; return $m->{exp} && $m->{exp}[1] <= $now && !$m->{lock} && !$m->{del} }

sub spent { my ($q, $n) = @_; return $q->{opt}{max_attempts} > 0 && $n >= $q->{opt}{max_attempts} }

# By the options now, or those before if nobody has used the queue since.
sub backoff
{
	my ($q, $attempts) = @_;
	my @b = map { min($_->{backoff} * 2**min($attempts - 1, 40), $_->{backoff_limit}) } $q->{opt}, @{ $q->{was} };
	return (0.9 * min(@b), 1.1 * max(@b));
}

# The dead letter that a message becomes; undef if its queue has none.
sub dead_letter
{
	my ($self, $q, $m, $reason, $attempts, $err, $t0, $t1) = @_;
	my $dead = $self->{q}{ $q->{opt}{dead_letter} } or return;
	my $ttl = $dead->{opt}{ttl};

	return ($dead, {
			%{ updated($m) }{qw(tag body headers prio key dedup)},
			id => undef, attempts => 0, err => $err, ready => undef,
			exp => defined $ttl ? [ $t0 + $ttl, $t1 + $ttl ] : undef,
			xd => [ [ $q->{name}, $m->{id}, $reason, $attempts, $err ], @{ $m->{xd} // [] } ] });
}

# The worker has taken it there.
sub bury
{
	my ($self, $q, $m, $t0, $t1) = @_;
	my $err = $m->{attempts} > 0 ? $m->{err} : undef;
	my $reason = $m->{late} ? [ 'attempts', 'expired' ] : $m->{dying};
	my ($dead, $letter) = $self->dead_letter($q, $m, $reason, $m->{attempts}, $err, $t0, $t1);

	remove($q, $m);
	push @{ $dead->{msgs} }, $letter if $dead;
}

# Settles a delivery for an open transaction.
sub settle
{
	my ($self, $tx, $q, $m, $verb, %arg) = @_;
	my $l = $m->{lease};
	my $attempts = $m->{attempts} + 1;
	my ($t0, $t1) = @arg{qw(t0 t1)};
	my ($dead, $letter);

	$l->{settler} = $tx;
	my $free = sub { $l->{settler} = undef };

	if ($verb eq 'ack')
	{
		$m->{del} = $tx;
		my $keep = { %{ updated($m) }{qw(id tag body headers xd prio key dedup)}, consumer => $l->{consumer}, at => [ $t0, $t1 ] };
		my $archive = defined $q->{opt}{retain} ? $q->{archive} : undef;
		did($tx,
			sub { return if $m->{gone}; remove($q, $m); push @$archive, $keep if $archive },
			sub { $m->{del} = undef; $free->() });
	}
	elsif ($verb eq 'release')
	{
		did($tx, sub {
				my (undef, $now) = @_;
				return unless _has($m, $l);
				$m->{lease} = undef;
				$m->{attempts}++ if $FALSE_BELIEF eq 'release';
				# from memory, it goes back there, due at once
				$m->{ready} = [ $m->{ready}[0], max($m->{ready}[1], $now) ] if $m->{mem};
			}, $free);
	}
	elsif ($verb eq 'nack' && !spent($q, $attempts))
	{
		my ($lo, $hi) = defined $arg{delay} ? ($arg{delay}) x 2 : backoff($q, $attempts);
		my $err = $arg{reason} // ($m->{mem} ? [ undef, $m->{err} ] : undef);
		# the transaction may have locked it at a level that is not undone
		my @before = @$m{qw(lock lockonly)};
		@$m{qw(lock lockonly)} = ($tx, 0);
		did($tx,
			sub {
				return unless _has($m, $l);
				@$m{qw(lease lock mem attempts err)} = (undef, undef, undef, $attempts, $err);
				$m->{ready} = [ $t0 + $lo, $t1 + $hi ];
			},
			sub { @$m{qw(lock lockonly)} = @before; $free->() });
	}
	else
	{
		my $reason = $verb eq 'nack' ? 'attempts' : $verb eq 'drop' ? 'maxlen' : 'rejected';
		my $err = $arg{reason} // ($m->{attempts} > 0 ? $m->{err} : undef);
		$attempts-- if $verb eq 'drop';
		$m->{del} = $tx;
		($dead, $letter) = $self->dead_letter($q, $m, $reason, $attempts, $err, $t0, $t1);
		insert($tx, $dead, $letter, 0) if $dead;
		did($tx, sub { remove($q, $m) }, sub { $m->{del} = undef; $free->() });
	}
}

# Whether a settling verb of this transaction may act on this delivery.
sub current
{
	my ($m, $receipt, $tx) = @_;
	my $l = $m->{lease};
	return !$m->{gone} && $l && $l->{receipt} == $receipt && !$l->{settler} &&
	  ($l->{state} eq 'held' || $l->{tx} == $tx);
}

# The session is gone, or did DISCARD ALL.
sub end_session
{
	my ($self, $s, $t0, $t1) = @_;
	foreach my $q (values %{ $self->{q} })
	{
		foreach my $m (@{ $q->{msgs} })
		{
			my $l = $m->{lease};
			next unless $l && $l->{session} && $l->{s} == $s && $l->{state} eq 'held';
			if ($l->{settler})
			{
				@$l{qw(session deadline)} = (0, [ $t0, $t1 ]);
			}
			else
			{
				fail($q, $m, 'session', $t0, $t1);
			}
		}
	}
}

# ------------------------------------------------------------------ time

# What happens by itself until now.
sub pass
{
	my ($self, $now) = @_;
	my $n = 0;
	foreach my $q (values %{ $self->{q} })
	{
		foreach my $m (@{ $q->{msgs} })
		{
			my $l = $m->{lease};
			if ($l && $l->{state} eq 'held' && !$l->{settler} && $l->{deadline} && $l->{deadline}[1] <= $now)
			{
				# it fails when somebody notices, which is between then and now
				fail($q, $m, 'lease', $l->{deadline}[0], $now);
				$m->{unnoticed} = 1;
				$n++;
			}
			elsif (!$l && ($m->{dying} // '') ne 'expired' && !$m->{ins} && expired($m, $now))
			{
				# before the worker has taken it, or just after
				$m->{late} = 1 if $m->{dying};
				$m->{dying} = 'expired';
				$n++;
			}
		}
	}
	return $n;
}

# If something is just being reached within so many seconds, when it is over.
sub reached
{
	my ($self, $now, $margin) = @_;
	my $until = 0;
	my $look = sub {
		my ($t) = @_;
		$until = $t->[1] if $t && $t->[0] <= $now + $margin && $t->[1] > $now && $t->[1] > $until;
	};
	foreach my $q (values %{ $self->{q} })
	{
		foreach my $m (@{ $q->{msgs} })
		{
			$look->($m->{ready});
			$look->($m->{exp});
			$look->($m->{lease}{deadline}) if $m->{lease};
		}
		$look->($_->{until}) foreach values %{ $q->{dedup} };
		if ($q->{opt}{rate_limit})
		{
			my ($a, undef) = tokens($q, $now, $now);
			my (undef, $b) = tokens($q, $now + $margin, $now + $margin);
			$until = max($until, $now + $margin) if $a != $b;
		}
	}
	return $until;
}

# ------------------------------------------------------------ deliveries

sub tokens
{
	my ($q, $t0, $t1) = @_;
	my $time = 1 / $q->{opt}{rate_limit};
	my $bucket = max(1, $time);
	my $n = sub { my ($t, $full) = @_; return max(0, int(($t + $bucket - max($full, $t)) / $time + 1e-6)) };
	return ($n->($t0, $q->{full}[1]), $n->($t1, $q->{full}[0]));
}

# What a producer drops to make room is taken from consumers, but no delivery.
sub is_delivered { my ($m) = @_; return $m->{lease} && !$m->{lease}{dropping} }

# How many more the queue's limits allow: at least, at most.
sub room
{
	my ($q, $t0, $t1) = @_;
	my ($lo, $hi) = (1e9, 1e9);
	($lo, $hi) = tokens($q, $t0, $t1) if $q->{opt}{rate_limit};
	if (defined $q->{opt}{max_in_flight})
	{
		my $slots = max(0, $q->{opt}{max_in_flight} - grep { is_delivered($_) } @{ $q->{msgs} });
		$lo = min($lo, $slots);
		$hi = min($hi, $slots);
	}
	return ($lo, $hi);
}

sub take_tokens
{
	my ($q, $n, $t0, $t1) = @_;
	return if !$q->{opt}{rate_limit} || !$n;
	my $time = $n / $q->{opt}{rate_limit};
	$q->{full} = [ max($q->{full}[0], $t0) + $time, max($q->{full}[1], $t1) + $time ];
}

# In the order of delivery: priority; what has a time before what has none, by it; id.
sub _before
{
	my ($a, $b) = @_;
	return $b->{prio} <=> $a->{prio}
	  || !!$b->{ready} <=> !!$a->{ready}
	  || ($a->{ready} ? $a->{ready}[0] <=> $b->{ready}[0] : 0)
	  || ($FALSE_BELIEF eq 'lifo' && !$a->{ready} ? -1 : 1) * (($a->{id} // 1e18) <=> ($b->{id} // 1e18));
}

# Whether the one has to come before the other, as far as is known.
sub surely_before
{
	my ($a, $b) = @_;
	return _before($a, $b) < 0 if $a->{prio} != $b->{prio} || !$a->{ready} || !$b->{ready} || is_exact($a) && is_exact($b);
	return $a->{ready}[1] < $b->{ready}[0];
}

sub is_exact { my ($m) = @_; return !$m->{ready} || $m->{ready}[0] == $m->{ready}[1] }

sub is_free
{
	my ($m, $tx, $now, $perhaps) = @_;
	return !$m->{ins} && !$m->{lease} && !$m->{dying} && !$m->{del}
	  && !($m->{lock} && !($m->{lockonly} && $tx && $m->{lock} == $tx))
	  && !($m->{ready} && $m->{ready}[ $perhaps ? 0 : 1 ] > $now)
	  && !($m->{exp} && $m->{exp}[1] <= $now);
}

# The messages a dequeue of this transaction may get now, the first one first; with
# perhaps also those of which it is not known whether they are due.
sub deliverable
{
	my ($self, $q, $tx, $now, $match, $perhaps) = @_;
	my @free = grep { is_free($_, $tx, $now, $perhaps) } @{ $q->{msgs} };

	return () if $q->{paused};
	if ($q->{opt}{ordered})
	{
		my (%first, %held);
		foreach my $m (grep { defined $_->{key} && !$_->{ins} } @{ $q->{msgs} })
		{
			my $k = $m->{key};
			$held{$k} = $m if $m->{lease} || $m->{mem};
			next if $m->{del} && $tx && $m->{del} == $tx || $m->{exp} && $m->{exp}[1] <= $now;
			$first{$k} = $m if !$first{$k} || ($m->{id} // 1e18) < ($first{$k}{id} // 1e18);
		}
		@free = grep { my $k = $_->{key}; !defined $k || $first{$k} == $_ && (!$held{$k} || $held{$k} == $_) } @free;
	}
	@free = grep { contains($_->{headers}, $match) } @free if $match;
	@free = sort { _before($a, $b) } @free;
	return @free;
}

sub contains
{
	my ($has, $wanted) = @_;
	return 0 unless $has;
	return !grep { !defined $has->{$_} || $has->{$_} ne $wanted->{$_} } keys %$wanted;
}

# For whoever reads of a failure.
sub show
{
	my ($m) = @_;
	return join ' ', "priority $m->{prio}", $m->{ready} ? 'due ' . join('..', map { sprintf '%.6f', $_ } $m->{ready}[0] == $m->{ready}[1] ? $m->{ready}[0] : @{ $m->{ready} }) : (),
	  "attempts $m->{attempts}", (map { $m->{$_} ? "[$_]" : () } qw(mem ins lock del)), $m->{dying} ? "dying: $m->{dying}" : (),
	  $m->{lease} ? "leased: $m->{lease}{state}" : ();
}

# Whether a dequeue need not find this one, which it may have: the worker may be
# writing its failure just now, which locks the row; or our own transaction has
# locked it, and others have put it aside until that ends; or the worker has
# brought it just now.
sub may_be_missed { my ($m) = @_; return $m->{mem} || $m->{lock} || !defined $m->{id} }

# Nor one that waits for its key behind what this transaction itself is deleting.
sub waits_for_own
{
	my ($q, $m, $tx) = @_;
	return $q->{opt}{ordered} && defined $m->{key}
	  && grep { defined $_->{key} && $_->{key} eq $m->{key} && $_->{del} && $_->{del} == $tx } @{ $q->{msgs} };
}

# Whether it was due by t0, or has come so while somebody waited.
sub was_due { my ($m, $t0) = @_; return !$m->{ready} || $m->{ready}[1] <= $t0 }

# Judges what a dequeue returned from one queue: undef, or what is wrong.  Says by
# reference whether the batch has to be at its end.
sub judge_delivery
{
	my ($self, $q, $tx, $now, $match, $most, $had, $got, $t0, $t1, $ended) = @_;
	my @free = $self->deliverable($q, $tx, $now, $match, 1);
	my ($lo, $hi) = room($q, $t0, $t1);
	my $loose = $q->{opt}{ordered} || grep { $_->{lock} || !is_exact($_) } @free;
	my $last = grep { spent($q, $_->{attempts} + 1) } @free;
	my $n = 0;

	$$ended = 0;
	foreach my $m (@$got)
	{
		my ($i) = grep { $free[$_] == $m } 0 .. $#free;
		return "message $m->{id} of $q->{name} may not be delivered at $now: " . show($m) unless defined $i;
		return "message $m->{id} of $q->{name}: no more are allowed now" if $n >= min($hi, $most);
		return "message $m->{id} of $q->{name} came after one on its last attempt" if $$ended;
		if (!$q->{opt}{ordered} && !$m->{lock})
		{
			my $before = first {
				!$_->{lock} && was_due($_, $t0) && surely_before($_, $m) && !($_->{mem} && $self->{is_written}->($q, $_))
			} @free[ 0 .. $i - 1 ];
			return "message $m->{id} of $q->{name} came before $before->{id}: " . show($m) . '; ' . show($before) if $before;
		}
		if (spent($q, $m->{attempts} + 1))
		{
			return "message $m->{id} of $q->{name} is on its last attempt and did not come alone" if $had + $n > 0;
			$$ended = 1;
		}
		$n++;
		splice @free, $i, 1;
		@free = grep { !defined $_->{key} || $_->{key} ne $m->{key} } @free if $q->{opt}{ordered} && defined $m->{key};
	}
	return if $$ended;
	@free = grep { was_due($_, $t0) && !may_be_missed($_) && !waits_for_own($q, $_, $tx) } @free;
	if (@free && $n < min($lo, $most))
	{
		my $next = $free[0];
		if ($loose ? $last && $had + $n > 0 : spent($q, $next->{attempts} + 1) && $had + $n > 0)
		{
			$$ended = 1;
			return;
		}
		return "message $next->{id} of $q->{name} should have been delivered: " . show($next);
	}
	return;
}

# ------------------------------------------------------- limited lengths

sub length_of
{
	my ($q) = @_;
	my $n = 0;
	foreach my $m (@{ $q->{msgs} })
	{
		next if $m->{ins} ? !$m->{reserved} : $m->{lease} && $m->{lease}{state} eq 'held';
		$n++;
	}
	return $n;
}

sub drops { my ($q) = @_; return defined $q->{opt}{max_length} && $q->{opt}{overflow} eq 'drop_head' }

# What an enqueue of n messages has to drop for them: (how many at least, how
# many are wanted), or nothing if it has to fail.
sub places
{
	my ($q, $n) = @_;
	my $most = $q->{opt}{max_length};
	return (0, 0) if !defined $most || $n == 0;
	return () if $n > $most;
	my $room = $most - length_of($q);
	my $lack = $n - min(max($room, 0), $n);
	return () if $lack > 0 && $q->{opt}{overflow} eq 'reject';
	return ($lack, $lack > 0 ? $lack + ($room < 0 ? min(-$room, $n) : 0) : 0);
}

# Whether n messages, one after the other, find room without dropping any.
sub fits
{
	my ($q, $n) = @_;
	return 1 if !defined $q->{opt}{max_length};
	return !!$q->{opt}{max_length} if !$n;
	return length_of($q) + $n <= $q->{opt}{max_length};
}

# What may be dropped, first that which goes first.
sub droppable
{
	my ($self, $q, $tx, $now) = @_;
	my @free = grep { is_free($_, $tx, $now) && !$_->{mem} } @{ $q->{msgs} };
	@free = sort { $a->{prio} <=> $b->{prio} || _before($a, $b) } @free;
	return @free;
}

1;

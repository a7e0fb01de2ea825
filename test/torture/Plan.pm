# What happens to the server and when, which the seed alone decides.
#
# Each kind of fault is a card.  The cards are dealt out over seeds: the k-th is
# due in each seed that leaves the same rest as k when divided by three, so that
# any three seeds in a row have seen all of them.  What time is left is filled
# from shuffled decks of all cards.

package Plan;

use strict;
use warnings;

# Those that end or restart server processes ...
our @hard = qw(kill_backend kill_worker kill_postmaster immediate fast no_worker);
# ... and those that do not.
our @soft = qw(alter cancel checkpoint clock_back clock_forward delete_rows fill_leases index lock_rows look
	mq_delete other_database pause pin poison purge redrive redrive_twice replay stop_consumer stop_worker terminate truncate
	update_rows vacuum vacuum_full);

# In the order they are dealt out.  A few have to meet what a seed is short of:
# fill_leases a small lease table, kill_worker and stop_worker a worker.
our @dealt = qw(
	fill_leases    kill_backend     kill_postmaster
	kill_worker    immediate        clock_forward
	stop_worker    fast             no_worker
	clock_back     terminate        stop_consumer
	pin            cancel           alter
	pause          purge            redrive
	vacuum_full    vacuum           other_database
	lock_rows      update_rows      index
	truncate       delete_rows      mq_delete
	look           checkpoint       poison
	redrive_twice  replay);

# What a server of this seed is short of, as its settings say.
sub few_leases { return $_[0] % 3 == 0 }
sub no_worker { return $_[0] % 12 == 7 }

# Can this fault be dealt to this seed?
sub fits
{
	my ($seed, $what) = @_;
	return few_leases($seed) if $what eq 'fill_leases';
	return !no_worker($seed) if $what =~ /worker/;
	return 1;
}

sub shuffled
{
	my @from = @_;
	my @to;
	push @to, splice @from, rand @from, 1 while @from;
	return @to;
}

# Cards without end; poison, which crashes the server several times, only where
# it is dealt out.
sub deck
{
	my ($seed, @cards) = @_;
	@cards = grep { fits($seed, $_) && $_ ne 'poison' } @cards;
	my @left;
	return sub {
		@left = shuffled(@cards) if !@left;
		return shift @left;
	};
}

# The plan of a seed: [ second, what, a number of its own, due ] in order of
# time.
sub of_seed
{
	my ($seed, $seconds) = @_;
	srand($seed);
	my $harm = (0.1, 0.2, 0.3)[ rand 3 ];
	my @due = shuffled(map { $dealt[$_] } grep { $_ % 3 == $seed % 3 && fits($seed, $dealt[$_]) } 0 .. $#dealt);
	my ($hard, $soft) = (deck($seed, @hard), deck($seed, @soft));
	my @plan;
	my $step = $seconds * 0.7 / @due;
	for (my $t = 1 + rand 0.5; $t < $seconds - 1; $t += 0.1 + rand 0.7)
	{
		my $due = @due && $t >= ($#plan < 0 ? 0 : (grep { $_->[3] } @plan) * $step);
		push @plan, [ sprintf('%.3f', $t), $due ? shift @due : rand() < $harm ? $hard->() : $soft->(),
			int rand 1e6, $due ? 1 : 0 ];
	}
	return @plan;
}

1;

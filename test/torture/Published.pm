# The judge's part for publishing.  The ledger says of each published message which
# queues its key leads to; each copy then is a message of its own (token@queue), of
# which check wants all it wants of others: here, whether they all belong
# together.
#
#	misrouted	no copy in a queue that the key does not lead to.  A binding that
#				comes and goes: a copy is there if it was committed before the
#				publish was sent and not removed before it had returned, none if it
#				was not there at any time of it; else either.  If a binding decides
#				over the alternate, it is the one or the other
#	torn		all its queues and its business row have it, or none
#	count		what publish returned is the number of its queues
#	mandatory	it is refused if it leads nowhere, and only then
#	dead exchange	a dead letter of a queue with such an exchange is once in each of
#				the queues that this leads to, and its x-death names the queue

package Published;

use strict;
use warnings;

my $INF = 9**9**9;

sub new
{
	my ($class, %c) = @_;
	my $self = bless {%c}, $class;
	for my $r (@{ $c{other}{published} // [] })
	{
		for my $m (@{ $r->{m} }) { $self->{said}{ $m->[0] } = { t0 => $r->{t0}, t => $r->{t}, n => $m->[1] } }
	}
	for my $r (@{ $c{other}{binds} // [] })
	{
		my $x = $c{tx}{ $r->{tx} };
		next if ($x->{heard} // '') eq 'rolledback';
		push @{ $self->{binds}{ $r->{pattern} } }, { there => $r->{verb} eq 'bind' ? 1 : 0, t0 => $x->{t0} // $r->{t},
			t => $x->{heard} eq 'committed' ? $x->{t} : $INF };
		$c{did}->($r->{verb}) if $x->{heard} eq 'committed';
	}
	push @{ $self->{rows}{ $_->[0] } }, $_->[1] for @{ $c{final}{business} // [] };
	return $self;
}

sub violation { my ($self, @what) = @_; return $self->{violation}->(@what) }
sub did { my ($self, $what) = @_; return $self->{did}->($what) }

# Whether a binding was there from one time to another: 1, 0, undef for perhaps.
sub bound
{
	my ($self, $pattern, $from, $to) = @_;
	my %may = (0 => 1);
	for my $b (@{ $self->{binds}{$pattern} // [] })
	{
		last if $b->{t0} >= $to;
		%may = () if $b->{t} <= $from;
		$may{ $b->{there} } = 1;
	}
	return keys %may == 1 ? (keys %may)[0] : undef;
}

# Whether one of the patterns was bound.
sub churned
{
	my ($self, $p) = @_;
	return 0 if !@{ $p->{churn} };
	my $said = $self->{said}{ $p->{p} } or return undef;
	my @bound = map { $self->bound($_, $said->{t0}, $said->{t}) } @{ $p->{churn} };
	return 1 if grep { $_ } @bound;
	return (grep { !defined } @bound) ? undef : 0;
}

# Makes messages of what was published; $trace says whether there is one of a token.
# Called once, before messages are judged.
sub expand
{
	my ($self, $trace) = @_;
	for my $token (sort keys %{ $self->{publish} })
	{
		my $p = $self->{publish}{$token};
		my $x = $self->{tx}{ $p->{tx} };
		my $said = $self->{said}{$token};
		my $came = $x->{o} eq 'committed' && !$p->{undo};
		my $churned = $self->churned($p);
		my $own = 'xf';
		my @with = (@{ $p->{to} }, $own);
		my @without = (@{ $p->{to} }, @{ $p->{else} });
		my @to = $churned || (!defined $churned && $trace->("$token\@$own")) ? @with : @without;
		# what never came is judged as that, wherever it is
		my %to = map { $_ => 1 } $came ? @to : (@with, @without);
		$self->{message}{"$token\@$_"} = { tok => "$token\@$_", tx => $p->{tx}, q => $_, undo => $p->{undo}, due => $p->{due} / 1000, t => $p->{t} }
		  for keys %to;

		if ($said && defined $said->{n})
		{
			my %may = map { $_ => 1 } defined $churned || $came ? scalar @to : (scalar @with, scalar @without);
			$self->violation('count', "$token went to " . join(' or ', sort keys %may) . " queues, publish said $said->{n}") if !$may{ $said->{n} };
		}
		my @rows = @{ $self->{rows}{$token} // [] };
		my @there = grep { $trace->("$token\@$_") } sort keys %to;
		$self->violation('torn', "$token of $p->{tx} ($x->{heard}) is in " . (join(', ', @there) || 'no queue') . ' of ' . (join(', ', sort keys %to) || 'none')
			. ', and its business row is there ' . scalar(@rows) . ' times')
		  if $came ? @rows != 1 || @there != @to : @rows || @there;
		$self->violation('torn', "the business row of $token is of $rows[0], not of $p->{tx}") if @rows && $rows[0] ne $p->{tx};

		next if !$came;
		my $unknown = $x->{heard} eq 'unknown' && !$x->{gid};
		$self->{sum}{published}++;
		$self->{sum}{unheard}++ if $unknown;
		$self->did('published, outcome unknown') if $unknown;
		$self->did('published to no queue') if !@to;
		$self->did('alternate') if @{ $p->{else} } && !grep { $_ eq $own } @to;
		$self->did(!defined $churned ? 'binding changed meanwhile' : $churned ? 'binding there' : 'binding not there') if @{ $p->{churn} };
	}
	$self->mandatory;
	$self->dead_exchange;
	return;
}

# Says of a token that came out of nothing whether it was published elsewhere.
sub stray
{
	my ($self, $token) = @_;
	my ($p, $queue) = $token =~ /^(.*)@(\w+)$/ or return 0;
	return 0 if !$self->{publish}{$p};
	$self->violation('misrouted', "$p with key $self->{publish}{$p}{key} of $self->{publish}{$p}{x} came to $queue");
	return 1;
}

sub mandatory
{
	my ($self) = @_;
	for my $r (grep { $_->{mandatory} } @{ $self->{other}{published} // [] })
	{
		my (@nowhere, $perhaps);
		for my $m (@{ $r->{m} })
		{
			my $p = $self->{publish}{ $m->[0] } or next;
			next if @{ $p->{to} } || @{ $p->{else} };
			my $churned = $self->churned($p);
			$perhaps = 1 if !defined $churned;
			push @nowhere, $m->[0] if defined $churned && !$churned;
		}
		$self->violation('mandatory', "$nowhere[0] leads nowhere, and was not refused") if @nowhere && !$r->{refused};
		$self->violation('mandatory', "$r->{m}[0][0] was refused, and leads somewhere") if !@nowhere && !$perhaps && $r->{refused};
		$self->did('mandatory refused') if $r->{refused};
	}
	return;
}

sub dead_exchange
{
	my ($self) = @_;
	my $of = $self->{final}{dead_exchange} // {};
	for my $q (sort keys %$of)
	{
		my (%at, %all);
		my @targets = sort keys %{ $of->{$q} };
		for my $to (@targets)
		{
			for my $row (@{ $of->{$q}{$to} })
			{
				my ($token, $from, $deaths) = @$row;
				$at{"$token $to"}++;
				$all{$token} = 1;
				$self->violation('dead exchange', "$token died in $q, and x-death in $to names " . ($from // 'nothing')) if ($from // '') ne $q;
				$self->violation('dead exchange', "$token died in $q once, and has $deaths deaths in $to") if $deaths != 1;
			}
		}
		for my $token (sort keys %all)
		{
			my @n = map { $at{"$token $_"} // 0 } @targets;
			$self->violation('dead exchange', "$token died in $q, and is there " . join(', ', map { "$n[$_] times in $targets[$_]" } 0 .. $#n))
			  if grep { $_ != 1 } @n;
			$self->did('dead letter published');
		}
	}
	return;
}

1;

# The exchanges of the torture, and where they lead by a matcher of our own: mq is
# not asked.
#
#	news	a topic exchange, alternate rest; it leads to side, too
#	side	a topic exchange without an alternate
#	rest	takes what matches nothing in news
#	graves	where xd's dead letters are published
#
# xf has no binding but those that the binder makes and removes in news all the time.
# A message is there once in each of its queues, so there its token ends in
# '@' and the queue.

package Topology;

use strict;
use warnings;

use Step qw(chance pick quote);

our @queues = qw(xa xb xc xd xe xf);
our @graves = qw(g1 g2);
our @exchanges = ([ 'rest', 'fanout' ], [ 'news', 'topic', 'rest' ], [ 'side', 'topic' ], [ 'graves', 'topic' ]);
our @bindings = ([ 'news', 'xa', 'a.*' ], [ 'news', 'xa', 'a.#' ], [ 'news', 'xa', '*.b' ], [ 'news', 'xb', '#.b.#' ],
	[ 'news', 'xd', '*.c.#' ], [ 'news', 'xd', '#.d.d' ], [ 'side', 'xb', 'a.*.c' ], [ 'side', 'xc', '#.c' ], [ 'side', 'xc', 'a.b.#' ],
	[ 'side', 'xb', 'b.#' ], [ 'side', 'xc', '*.a.#' ],
	[ 'rest', 'xe', '#' ], [ 'graves', 'g1', 'dead.#' ], [ 'graves', 'g2', '*.xd' ], [ 'graves', 'g2', '#.xd' ]);
our @to_exchange = ([ 'news', 'side', '#.c' ], [ 'news', 'side', 'd.a.#' ], [ 'news', 'side', 'c.d.#' ]);
our @churned = ('b.#', '*.a', 'd', '#.a.#');

sub queue_options
{
	my ($queue) = @_;
	return "max_attempts => 1, dead_letter => '', dead_letter_exchange => 'graves', dead_letter_key => 'dead.xd'"
	  if $queue eq 'xd';
	return "backoff => '0', max_attempts => 8";
}

# SQL that makes the exchanges, and then, the queues being there, the bindings.
sub exchanges_sql { return map { "SELECT mq.create_exchange(" . join(', ', map { quote($_) } @$_) . ')' } @exchanges }
sub bindings_sql
{
	return ((map { "SELECT mq.bind('$_->[0]', '$_->[1]', '$_->[2]')" } @bindings),
		map { "SELECT mq.bind_exchange('$_->[0]', '$_->[1]', '$_->[2]')" } @to_exchange);
}

# SQL for a message's token in a queue's table.
sub token
{
	my ($token, $queue) = @_;
	return $queue =~ /^x.$/ ? "($token || '\@$queue')" : $token;
}

# Do words match a pattern's?
sub words_match
{
	my ($p, $w) = @_;
	return !@$w if !@$p;
	my ($first, @more) = @$p;
	if ($first eq '#')
	{
		for my $from (0 .. @$w) { return 1 if words_match(\@more, [ @{$w}[ $from .. $#$w ] ]) }
		return 0;
	}
	return 0 if !@$w || ($first ne '*' && $first ne $w->[0]);
	return words_match(\@more, [ @{$w}[ 1 .. $#$w ] ]);
}

sub matches
{
	my ($exchange, $pattern, $key) = @_;
	return $exchange eq 'rest' || words_match([ split /\./, $pattern ], [ split /\./, $key ]);
}

# Where a key leads: to queues in any case, else to others if no binding of the
# binder's matches, and which of his patterns may.
sub route
{
	my ($exchange, $key) = @_;
	my %to = map { $_->[1] => 1 } grep { $_->[0] eq $exchange && matches(@{$_}[ 0, 2 ], $key) } @bindings;
	my @next = grep { $_->[0] eq $exchange && matches(@{$_}[ 0, 2 ], $key) } @to_exchange;
	my $alternate = %to || @next ? undef : (map { $_->[2] } grep { $_->[0] eq $exchange } @exchanges)[0];
	for my $x (@next) { $to{$_} = 1 for @{ (route($x->[1], $key))[0] } }
	my $else = $alternate ? (route($alternate, $key))[0] : [];
	my @churn = $exchange eq 'news' ? grep { matches('news', $_, $key) } @churned : ();
	return ([ sort keys %to ], $else, \@churn);
}

sub key { return join '.', map { pick(qw(a b c d)) } 1 .. pick(1, 2, 2, 3, 3, 4) }

# A message to publish: { p: token, x, key, to, else, churn }, leading somewhere in any
# case, or nowhere in any case, or not asked to.
sub message
{
	my ($exchange, $token, $leads) = @_;
	while (1)
	{
		my $key = key();
		my ($to, $else, $churn) = route($exchange, $key);
		next if $leads && !@$to && !@$else;
		next if defined $leads && !$leads && (@$to || @$else || @$churn);
		return { p => $token, x => $exchange, key => $key, to => $to, else => $else, churn => $churn };
	}
}

# A statement that publishes tokens: { m: messages, sql, undo, due, mandatory, refused,
# how }. refused: it has to fail, since it is mandatory and leads nowhere. It returns
# how many queues got each.
sub step
{
	my ($undo, @t) = @_;
	my $exchange = chance(0.75) ? 'news' : 'side';
	my $refused = chance(0.06);
	my $mandatory = $refused || chance(0.25);
	my @m = map { message($exchange, $_, $mandatory ? 1 : undef) } @t;
	if ($refused)
	{
		my $i = int rand @m;
		$m[$i] = message($exchange, $t[$i], 0);
	}
	my @how = ($mandatory && !$refused ? 'publish mandatory' : (), $undo ? 'publish in a savepoint' : ());
	my ($args, $due) = ('', 0);
	if (chance(0.1))
	{
		$due = int rand 1000;
		$args .= ", delay => '$due ms'";
	}
	$args .= ', mandatory => true' if $mandatory;
	my @keys = map { quote($_->{key}) } @m;
	my @bodies = map { quote(qq({"t":"$_->{p}"})) } @m;
	my $batch = @m > 1;
	push @how, $batch ? 'publish_batch' : 'publish' if !$refused;
	my $sql = $batch ? "SELECT * FROM mq.publish_batch('$exchange', ARRAY[" . join(',', @keys) . '], ARRAY[' . join(',', @bodies) . "]::jsonb[]$args)" :
	  "SELECT mq.publish('$exchange', $keys[0], $bodies[0]$args)";
	return { m => \@m, sql => $sql, undo => $undo || $refused ? 1 : 0, due => $due, mandatory => $mandatory ? 1 : 0,
		refused => $refused ? 1 : 0, how => \@how };
}

1;

# Topic patterns against an oracle written apart: a hundred thousand random pairs
# of pattern and key and more, through mq.bind and mq.publish_batch.  Then patterns
# that would take a matcher which tries one way after the other for ever.
#
# MQ_ORACLE_SEED gives another seed; a failure names it.

use strict;
use warnings;
use utf8;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Encode qw(encode_utf8);
use Test::More;

my $seed = $ENV{MQ_ORACLE_SEED} // 20_260_101;
srand($seed);
note("seed $seed");

my $patterns = 500;
my $keys = 120;

# The oracle: which beginnings of the key the beginning of the pattern takes, a
# word of the pattern after the other.
sub words
{
	my ($s) = @_;
	return $s eq '' ? () : split(/\./, $s, -1);
}

sub fits
{
	my ($pattern, $key) = @_;
	my @key = words($key);
	my @taken = (1, (0) x @key);

	for my $word (words($pattern))
	{
		my @next;
		for my $n (0 .. @key)
		{
			$next[$n] =
			    $word eq '#' ? $taken[$n] || ($n > 0 && $next[ $n - 1 ])
			  : $n == 0 ? 0
			  : $taken[ $n - 1 ] && ($word eq '*' || $word eq $key[ $n - 1 ]);
		}
		@taken = @next;
	}
	return $taken[@key] ? 1 : 0;
}

# The oracle is no use if it is wrong itself.
ok(fits(@$_), "oracle: '$_->[0]' takes '$_->[1]'")
  for [ '', '' ], [ '#', '' ], [ '#', 'a.b' ], [ '*', 'a' ], [ 'a.*', 'a.' ], [ 'a.#.b', 'a.b' ], [ '#.a.#', 'x.a.y.z' ], [ '#.#', '' ], [ '.', '.' ];
ok(!fits(@$_), "oracle: '$_->[0]' does not take '$_->[1]'")
  for [ '*', '' ], [ '', 'a' ], [ 'a.*', 'a' ], [ 'a.#.b', 'a' ], [ '*', '.' ], [ '#.*', '' ], [ 'a', 'A' ];

sub one_of { return $_[ rand @_ ] }

# Few words, so that they meet; odd ones, so that nothing about them is taken for granted.
my %words = (
	few => [ 'a', 'b', 'a', 'b', 'c', '' ],
	odd => [
		'', '', 'a', 'A', 'aa', 'ü', "u\x{308}", '€', '日本', '😀', ' ', "'", '"', '\\', '%', '$1', '$$', '{}', ',', "\n", "\t", "\x{7f}",
		'a*', '*a', '**', '#a', 'a#', '##', 'x' x 90, ('x' x 89) . 'y'
	],
	stars => [ 'a', 'b', '*', '#', '', '**' ]);

sub random_pattern
{
	my ($kind) = @_;
	my $n = int(rand 4) + int(rand 4);
	my @w = map { my $r = rand; $r < 0.2 ? '*' : $r < 0.45 ? '#' : one_of(@{ $words{$kind} }) } 1 .. $n;
	return join '.', @w;
}

# Half of the keys are made from a pattern, and most of these are left as they are.
sub random_key
{
	my ($kind, $pattern) = @_;
	my @w = map { one_of(@{ $words{$kind} }) } 1 .. int(rand 7);
	my $key;

	@w = map { $_ eq '*' ? one_of(@{ $words{$kind} }) : $_ eq '#' ? @w[ 0 .. int(rand 4) - 1 ] : $_ } words($pattern)
	  if rand() < 0.5;
	@w = map { $_ // '' } @w;
	splice @w, int(rand @w), int(rand 2), one_of(@{ $words{$kind} }) if @w && rand() < 0.3;
	$key = join '.', @w;
	$key .= '.' if rand() < 0.05;
	$key = ".$key" if rand() < 0.05;
	$key .= '.long' x 200 if rand() < 0.02;
	return $key;
}

sub literal
{
	my ($s) = @_;
	$s =~ s/'/''/g;
	return "'" . encode_utf8($s) . "'";
}

my $node = mq_node('main', conf => "log_statement = none\nmax_locks_per_transaction = 256\n");
$node->safe_psql('postgres', qq{
DO \$\$ BEGIN FOR n IN 1..$patterns LOOP PERFORM mq.create_queue('q' || n, dead_letter => ''); COMMIT; END LOOP; END \$\$;
CREATE FUNCTION got(OUT pattern int, OUT key int) RETURNS SETOF record LANGUAGE plpgsql AS \$\$
BEGIN
    -- all that went out, taken away
    FOR n IN 1..$patterns LOOP
        FOR key IN EXECUTE format('DELETE FROM mq.q_q%s RETURNING body::int', n) LOOP
            pattern := n;
            RETURN NEXT;
        END LOOP;
    END LOOP;
END \$\$});

my $pairs = 0;
my $fitting = 0;
for my $kind (sort keys %words)
{
	my @pattern = map { random_pattern($kind) } 1 .. $patterns;
	my %seen;
	my @key;

	while (@key < $keys)
	{
		my $key = random_key($kind, one_of(@pattern));
		push @key, $key unless $seen{$key}++;
	}
	$node->safe_psql('postgres', "BEGIN;\nSELECT mq.create_exchange('$kind');\n" . join('', map {
				"SELECT mq.bind('$kind', 'q$_', " . literal($pattern[ $_ - 1 ]) . ");\n" } 1 .. $patterns) . 'COMMIT');
	my @counts = lines($node->safe_psql('postgres', "SELECT mq.publish_batch('$kind', ARRAY[" . join(',', map { literal($_) } @key)
			  . '], ARRAY(SELECT to_jsonb(n) FROM generate_series(1, ' . @key . ') n))'));
	my %got = map { $_ => 1 } lines($node->safe_psql('postgres', "SELECT pattern || ' ' || key FROM got()"));
	my @wrong;
	my @miscounted;

	for my $k (1 .. @key)
	{
		my $n = 0;
		for my $p (1 .. $patterns)
		{
			my $fits = fits($pattern[ $p - 1 ], $key[ $k - 1 ]);
			my $got = delete $got{"$p $k"} // 0;

			$pairs++;
			$fitting += $fits;
			$n += $fits;
			push @wrong, "pattern '$pattern[$p - 1]' and key '$key[$k - 1]': " . ($fits ? 'should fit' : 'should not fit')
			  if $fits != $got;
		}
		push @miscounted, "key '$key[$k - 1]': $counts[$k - 1], not $n" if $counts[ $k - 1 ] ne $n;
	}
	is_deeply(\@wrong, [], "$kind: each key went where the oracle says")
	  or diag(encode_utf8(join("\n", "seed $seed, " . @wrong . ' pairs:', @wrong[ 0 .. ($#wrong < 20 ? $#wrong : 20) ])));
	is_deeply(\@miscounted, [], "$kind: the counts returned are right");
	is_deeply([ sort keys %got ], [], "$kind: nothing else arrived");

	# The bindings go one by one, the others stay.
	my @half = grep { $_ % 2 } 1 .. $patterns;
	$node->safe_psql('postgres', 'BEGIN;' . join('', map { "SELECT mq.unbind('$kind', 'q$_', " . literal($pattern[ $_ - 1 ]) . ");\n" } @half) . 'COMMIT');
	my $left = 0;
	for my $k (@key)
	{
		$left += fits($pattern[ $_ - 1 ], $k) for grep { !($_ % 2) } 1 .. $patterns;
	}
	is($node->safe_psql('postgres', "SELECT sum(n) FROM mq.publish_batch('$kind', ARRAY[" . join(',', map { literal($_) } @key) . ']) n'),
		$left, "$kind: with half of the bindings gone");
	$node->safe_psql('postgres', 'SELECT count(*) FROM got()');
}
cmp_ok($pairs, '>=', 100_000, "$pairs pairs");
cmp_ok($fitting, '>', $pairs / 50, "$fitting of them fit: both answers are tried");
cmp_ok($fitting, '<', $pairs / 2, '... often');

# One way after the other these take longer than the world lasts.
$node->safe_psql('postgres', "SELECT mq.create_exchange('slow')");
for my $case (
	[ 'many # and one word', join('.', ('#.a') x 249), join('.', ('a') x 1000), ],
	[ '... that ends otherwise', join('.', ('#.a') x 249, 'b'), join('.', ('a') x 1000), ],
	[ '... with an end that fits', join('.', ('#.a') x 249, 'b'), join('.', ('a') x 1000, 'b'), ],
	[ 'many # and *', join('.', ('#.*') x 249), join('.', ('a') x 1000), ],
	[ '... too few words', join('.', ('#.*') x 249), join('.', ('a') x 248), ],
	[ 'nothing but #', join('.', ('#') x 500), join('.', ('a') x 1000), ],
	[ 'no words at all', join('.', ('#') x 500), '', ],
	[ 'nothing but dots', join('.', ('#.') x 300), '.' x 1000 ],
	[ 'a long key', '#.a.#.b.#.c.#', join('.', ('a', 'b') x 100_000) ],
	[ '... that fits at its end', '#.a.#.b.#.c.#', join('.', ('a', 'b') x 100_000, 'c') ])
{
	my ($name, $pattern, $key) = @$case;
	is( $node->safe_psql('postgres', qq{
SELECT mq.bind('slow', 'q1', '$pattern');
SELECT mq.publish('slow', '$key');
SELECT mq.unbind('slow', 'q1', '$pattern')}),
		"\n" . fits($pattern, $key) . "\nt",
		$name);
}

# All of them at once, with each beginning of theirs: thousands of nodes alive.
$node->safe_psql('postgres', q{
SELECT mq.bind('slow', 'q' || n, rtrim(repeat('#.a.', n), '.')) FROM generate_series(1, 249) n;
SELECT mq.bind('slow', 'q' || n, rtrim(repeat('#.*.', n), '.')) FROM generate_series(1, 249) n});
is($node->safe_psql('postgres', q{SELECT mq.publish('slow', rtrim(repeat('a.', 1000), '.'))}), 249, 'a thousand words, 498 patterns');
is($node->safe_psql('postgres', q{SELECT mq.publish('slow', rtrim(repeat('b.', 100), '.'))}), 100, 'a hundred others');

# A match that takes long can be cancelled.
$node->safe_psql('postgres', q{SELECT mq.create_exchange('cancel'), mq.bind('cancel', 'q1', '#.a.#.b')});
is(error_of($node, q{SET statement_timeout = '20 ms'; SELECT mq.publish_batch('cancel', array_fill(repeat('a.', 100000), '{2000}'))}),
	'57014', 'a match can be cancelled');

$node->stop;
done_testing();

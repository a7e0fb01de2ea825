# One statement that enqueues, made up at random out of all there is.

package Step;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT_OK = qw(chance pick quote step);

sub chance { return rand() < $_[0] }
sub pick { return $_[ rand @_ ] }
sub quote { my ($v) = @_; $v =~ s/'/''/g; return "'$v'" }

# SQL that enqueues tokens into a queue: step(UNDO, QUEUE, DEDUP, TOKENS), with DEDUP
# perhaps with dedup_ids, UNDO under a savepoint that is rolled back.
# A step is { q, m: tokens, o: what each has besides, undo, how: [ways], due: ms,
# sql | copy }.  It returns the ids, but for COPY.
sub step
{
	my ($undo, $queue, $dedup, @t) = @_;
	my $ordered = $queue eq 'ord';
	my @o = map { {} } @t;
	my %step = (q => $queue, m => \@t, o => \@o, undo => $undo, due => 0);
	my @json = map { sprintf('{"t":"%s"%s}', $_, /!/ ? ',"poison":true' : '') } @t;
	my @body = map { quote($_) } @json;
	my @how = $undo ? 'savepoint' : ();
	if ($ordered)
	{
		for my $o (@o) { $o->{k} = 'k' . int rand 4 if chance(0.9) }
		push @how, 'key' if grep { defined $_->{k} } @o;
	}
	my @key = map { defined $_->{k} ? quote($_->{k}) : 'NULL' } @o;
	if (chance(0.2))
	{
		my $copy = chance(0.5);
		$step{how} = [ @how, $copy ? 'COPY' : 'INSERT' ];
		my $cols = $ordered ? 'body, key' : 'body';
		if ($copy)
		{
			$step{copy} = [ map { $json[$_] . (!$ordered ? '' : "\t" . ($o[$_]{k} // '\N')) } 0 .. $#t ];
			$step{sql} = qq{COPY mq."q_$queue" ($cols) FROM STDIN};
		}
		else
		{
			$step{sql} = qq{INSERT INTO mq."q_$queue" ($cols) VALUES } .
			  join(', ', map { $ordered ? "($body[$_], $key[$_])" : "($body[$_])" } 0 .. $#t) . ' RETURNING id';
		}
		return \%step;
	}
	my $args = '';
	if (!$ordered && chance(0.2))
	{
		$step{due} = int rand 1500;
		my $delay = chance(0.7);
		push @how, $delay ? 'delay' : 'deliver_at';
		$args .= $delay ? ", delay => '$step{due} ms'" : ", deliver_at => clock_timestamp() + '$step{due} ms'";
	}
	if (!$ordered && chance(0.2))
	{
		push @how, 'priority';
		$args .= ', priority => ' . int rand 10;
	}
	if ($queue eq 'ttl' && chance(0.5))
	{
		push @how, 'ttl';
		my $ttl = 100 + int rand 1200;
		$args .= ", ttl => '$ttl ms'";
		$_->{ttl} = $ttl for @o;
	}
	if ($dedup && $queue =~ /^(dup|ord)$/ && chance($ordered ? 0.3 : 0.8))
	{
		push @how, 'dedup_id';
		$_->{dd} = 'd' . int rand 8 for @o;
	}
	my $headers = chance(0.3);
	if ($headers)
	{
		push @how, 'headers';
		$_->{g} = 1 + int rand 2 for @o;
	}
	my @dd = map { defined $_->{dd} ? quote($_->{dd}) : 'NULL' } @o;
	my @g = map { defined $_->{g} ? quote(qq({"g": $_->{g}})) : 'NULL' } @o;
	if (@t > 1)
	{
		push @how, 'enqueue_batch';
		$args .= ', headers => ARRAY[' . join(',', @g) . ']::jsonb[]' if $headers;
		$args .= ', keys => ARRAY[' . join(',', @key) . ']::text[]' if $ordered;
		$args .= ', dedup_ids => ARRAY[' . join(',', @dd) . ']::text[]' if grep { defined $_->{dd} } @o;
		$step{sql} = "SELECT * FROM mq.enqueue_batch('$queue', ARRAY[" . join(',', @body) . "]::jsonb[]$args)";
	}
	else
	{
		my $bytes = chance(0.1);
		push @how, $bytes ? 'enqueue data' : 'enqueue';
		$args .= ", headers => $g[0]" if $headers;
		$args .= ", key => $key[0]" if $ordered;
		$args .= ", dedup_id => $dd[0]" if defined $o[0]{dd};
		$step{sql} = $bytes ? "SELECT mq.enqueue('$queue', data => convert_to($body[0], 'UTF8')$args)" :
		  "SELECT mq.enqueue('$queue', $body[0]$args)";
	}
	$step{how} = \@how;
	return \%step;
}

1;

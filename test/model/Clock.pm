# The server's clock, by the file that clock.c adds to it.
package Clock;

use strict;
use warnings;

use Time::HiRes ();

my $name = $ENV{MQ_MODEL_CLOCK} or die "MQ_MODEL_CLOCK is not set: see tools/model\n";
open my $file, '+<:raw', $name or die "$name: $!";
sysread $file, my $ahead, 8;
$ahead = unpack 'q', $ahead;

sub now { return Time::HiRes::time() + $ahead / 1e9 }

sub move
{
	my ($seconds) = @_;
	$ahead += int($seconds * 1e9);
	sysseek $file, 0, 0;
	syswrite $file, pack 'q', $ahead;
	return;
}

1;

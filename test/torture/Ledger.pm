# What the processes of the torture share: a ledger file of their own, a
# session that knows whether a statement's outcome is known, and how to wait
# until a server has come through a crash.
#
# A ledger is a file of JSON lines, each written with one write and synced
# before its writer goes on.  Times are CLOCK_MONOTONIC, which all processes of
# a machine share.

package Ledger;

use strict;
use warnings;

use IO::Handle;
use JSON::PP;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

my $json = JSON::PP->new->canonical;

sub now { return sprintf('%.6f', clock_gettime(CLOCK_MONOTONIC)) + 0 }

sub new
{
	my ($class, $file) = @_;
	open my $fh, '>>', $file or die "$file: $!\n";
	return bless { fh => $fh }, $class;
}

# Writes one record, of kind k.
sub put
{
	my ($self, $k, %rec) = @_;
	my $line = $json->encode({ t => now(), %rec, k => $k }) . "\n";
	syswrite($self->{fh}, $line) == length $line or die "ledger: $!\n";
	$self->{fh}->sync or die "ledger: $!\n";
	return;
}

# A server seen from outside: its process and its log.
package Server;

use strict;
use warnings;

use Time::HiRes qw(sleep);

sub new
{
	my ($class, $data, $log) = @_;
	return bless { data => $data, log => $log }, $class;
}

sub postmaster
{
	my ($self) = @_;
	open my $f, '<', "$self->{data}/postmaster.pid" or return 0;
	return (<$f> // 0) + 0;
}

# SIGKILLs one of its processes and waits until the postmaster has seen that
# and has brought everything up again, or another postmaster has.  Somebody else
# may have been quicker: then the process is gone, or the crash is another's.
sub kill_process
{
	my ($self, $pid) = @_;
	my $postmaster = $self->postmaster;
	my $from = -s $self->{log} // 0;
	kill 'KILL', $pid or return 1;
	for (1 .. 2000)
	{
		sleep(0.05);
		open my $f, '<', $self->{log} or next;
		seek $f, $from, 0;
		my $said = do { local $/; <$f> } // '';
		my $now = $self->postmaster;
		return 1 if $said =~ /(?:was terminated by signal 9|reinitializing).*ready to accept connections/s;
		return 1 if $now && $now != $postmaster && $said =~ /ready to accept connections/;
	}
	return 0;
}

# A session of an ordinary driver, each with a name of its own.  A statement
# that fails dies with { state, text, lost, t0 }: lost says that the connection
# is gone, so that nobody knows what the server did.
package Session;

use strict;
use warnings;

use DBI;

my $count = 0;

sub new
{
	my ($class, $ledger, $who, $host, %set) = @_;
	my $name = $who . '.' . ++$count;
	my $dbh = DBI->connect("dbi:Pg:dbname=postgres;host=$host;port=5432;application_name=$name",
		'postgres', '',
		{ RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, pg_server_prepare => 0 });
	my $self = bless { dbh => $dbh, name => $name, ledger => $ledger, alive => 1 }, $class;
	$ledger->put('session', s => $name, pid => $dbh->{pg_pid});
	$self->q("SET $_ = '$set{$_}'") for sort keys %set;
	return $self;
}

# Does $work, a statement whose text begins like $sql.  When it was sent
# stands in t0.
sub attempt
{
	my ($self, $sql, $work) = @_;
	$self->{t0} = Ledger::now();
	my $result;
	return $result if eval { $result = $work->($self->{dbh}); 1 };
	my $t0 = $self->{t0};
	my %e = (state => $self->{dbh}->state, text => "$@", t0 => $t0);
	$e{lost} = $e{state} =~ /^(08|57P0[123])/ || !$self->{dbh}->ping ? 1 : 0;
	$self->gone($t0) if $e{lost};
	$self->{ledger}->put('error', s => $self->{name}, state => $e{state}, sql => substr($sql, 0, 60),
		text => substr($e{text} =~ s/\s+/ /gr, 0, 160));
	die \%e;
}

# Runs one statement, returns its rows.
sub q
{
	my ($self, $sql) = @_;
	return $self->attempt($sql, sub {
		my ($dbh) = @_;
		return $dbh->selectall_arrayref($sql) if $sql =~ /^(SELECT|WITH|(INSERT|DELETE) .* RETURNING)\b/s;
		$dbh->do($sql);
		return [];
	});
}

# Sends lines to a COPY ... FROM STDIN.
sub copy
{
	my ($self, $sql, @lines) = @_;
	return $self->attempt($sql, sub {
		my ($dbh) = @_;
		$dbh->do($sql);
		$dbh->pg_putcopydata("$_\n") for @lines;
		$dbh->pg_putcopyend();
		return [];
	});
}

# Whether a notification has come.
sub notified
{
	my ($self) = @_;
	my $n;
	return $n ? 1 : 0 if eval { $n = $self->{dbh}->pg_notifies; 1 };
	my $text = "$@";
	$self->gone;
	die { lost => 1, state => '08006', text => $text, t0 => Ledger::now() };
}

# The connection is lost, or is about to be: at t0 it was there.
sub gone
{
	my ($self, $t0) = @_;
	$self->{ledger}->put('gone', s => $self->{name}, (defined $t0 ? (t0 => $t0) : ()));
	$self->{alive} = 0;
	return;
}

# Leaves, saying so first.
sub close
{
	my ($self) = @_;
	$self->{ledger}->put('end', s => $self->{name});
	$self->{alive} = 0;
	$self->{dbh}->disconnect;
	return;
}

1;

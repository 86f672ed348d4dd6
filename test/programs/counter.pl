# R01: a Perl program (closure, hash, open file, child on a pipe) goes on where it was.
use strict;
use warnings;
use Time::HiRes 'sleep';

$| = 1;
my $go = $ENV{PROBE_GO} // '/probe/go';

sub numbers {
    my $value = 1;
    return sub { return $value = ($value * 1103515245 + 12345) % 2147483648 };
}

my $next = numbers();
my %seen;
open(my $file, '+>', undef) or die "temporary file: $!";
# A child that answers the square of every number it is sent.
pipe(my $question_out, my $question_in) or die;
pipe(my $answer_out, my $answer_in) or die;
my $child = fork() // die;
if (!$child) {
    close $question_in;
    $answer_in->autoflush(1);
    while (my $line = <$question_out>) { print $answer_in $line * $line, "\n" }
    exit 0;
}
close $question_out;
close $answer_in;
$question_in->autoflush(1);
print "ready\n";
my @failures;
while (!-e $go) {
    my $value = $next->();
    $seen{ scalar keys %seen } = $value;
    print $file "$value\n";
    my $small = $value % 1000;
    print $question_in "$small\n";
    my $answer = <$answer_out>;
    if (!defined $answer || $answer != $small * $small) { push @failures, 'the child answered wrong'; last }
    sleep 0.001;
}
$seen{0}++ if defined $ENV{PROBE_BREAK};
my $again = numbers();
seek $file, 0, 0;
for my $index (0 .. (scalar keys %seen) - 1) {
    my $value = $again->();
    push @failures, "entry $index differs" if $seen{$index} != $value;
    my $line = <$file>;
    push @failures, "line $index of the file differs" if !defined $line || $line != $value;
}
close $question_in;
waitpid($child, 0);
push @failures, "the child ended with $?" if $? != 0;
print "FAIL: $_\n" for @failures;
print "PASS\n" if !@failures;
exit(@failures ? 1 : 0);

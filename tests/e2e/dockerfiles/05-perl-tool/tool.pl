#!/usr/bin/perl
print "tool\n";

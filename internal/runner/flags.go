package runner

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Defaults and limits of the flags.
const (
	DefaultLease    = 30 * time.Second
	DefaultAttempts = 3
	DefaultBackoff  = 10 * time.Second

	minLease = time.Second
)

// Flags returns the flags of the runner, which set the options, and gives these their defaults.
func (o *Options) Flags() *flag.FlagSet {
	flags := flag.NewFlagSet("offboard runner", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.DurationVar(&o.Lease, "lease", DefaultLease,
		"how long an item is its runner's without being renewed; 1s or more")
	flags.IntVar(&o.Attempts, "attempts", DefaultAttempts, "how many attempts of an item may fail until it is dead")
	flags.DurationVar(&o.Backoff, "backoff", DefaultBackoff,
		"how long an item waits after its first failed attempt, twice as long after each further one,\n"+
			"up to 10m; 0 puts it back to the head of the list at once")
	flags.DurationVar(&o.Wait, "wait", 0,
		"when no item is ready, how long to wait for one that waits for its next attempt\nor is held by another runner")
	flags.BoolVar(&o.Pop, "pop", false,
		"take the item with LPOP, without a claim: whatever becomes of the command, it is not tried again")
	return flags
}

// Parse reads arguments of the plain form, which are flags, "--" and the command. It returns false for others, also for
// wrong ones, of which the command line makes what it can.
func (o *Options) Parse(args []string) bool {
	end := slices.Index(args, "--")
	if end < 0 {
		return false
	}
	for _, arg := range args[:end] {
		if strings.HasPrefix(arg, "-") && !strings.HasPrefix(arg, "--") {
			return false // the command line takes flags with two hyphens only
		}
	}
	flags := o.Flags()
	if err := flags.Parse(args[:end]); err != nil || flags.NArg() > 0 {
		return false
	}
	o.Command = args[end+1:]
	return true
}

// validate returns all that is wrong with the flags at once.
func (o *Options) validate() error {
	var wrong []error
	if o.Lease < minLease {
		wrong = append(wrong, fmt.Errorf("--lease is %s: it must be %s or more", o.Lease, minLease))
	}
	if o.Attempts < 1 {
		wrong = append(wrong, fmt.Errorf("--attempts is %d: it must be 1 or more", o.Attempts))
	}
	if o.Backoff < 0 {
		wrong = append(wrong, fmt.Errorf("--backoff is %s: it must be 0 or more", o.Backoff))
	}
	if o.Wait < 0 {
		wrong = append(wrong, fmt.Errorf("--wait is %s: it must be 0 or more", o.Wait))
	}
	if o.Pop && (o.Lease != DefaultLease || o.Attempts != DefaultAttempts || o.Backoff != DefaultBackoff || o.Wait != 0) {
		wrong = append(wrong, errors.New("--pop cannot be used with other flags: what is popped is never tried again"))
	}
	return errors.Join(wrong...)
}

package cli

import (
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/queue"
)

// The flags of a push whose items have ids from the beginning.
const (
	flagIn     = "in"
	flagAt     = "at"
	flagUnique = "unique"
	flagFor    = "for"
)

// laterFlags say when and whether to push.
type laterFlags struct {
	in        time.Duration
	at        string
	unique    string
	uniqueFor time.Duration
}

// later is how to push.
type later struct {
	queue.PushOptions
	// due says to people when the items are; empty when that is at once.
	due string
}

func (f *laterFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.DurationVar(&f.in, flagIn, 0, "keep the items out of the queue for so long")
	flags.StringVar(&f.at, flagAt, "", "keep the items out of the queue until this time")
	flags.StringVar(&f.unique, flagUnique, "", "refuse the push when one with this key was made less than --for ago")
	flags.DurationVar(&f.uniqueFor, flagFor, 0, "how long the key of --unique refuses other pushes")
	for _, flag := range []string{flagIn, flagAt, flagUnique, flagFor} {
		complete(cmd, flag, cobra.NoFileCompletions)
	}
}

// options returns how to push; nil when the flags say nothing of it.
func (f *laterFlags) options(cmd *cobra.Command, now time.Time) (*later, error) {
	given := cmd.Flags().Changed
	switch {
	case given(flagIn) && given(flagAt):
		return nil, usageErrorf("--in and --at exclude each other")
	case given(flagIn) && f.in < time.Millisecond:
		return nil, usageErrorf("--in is %s, must be 1ms or more", f.in)
	case given(flagUnique) && f.unique == "":
		return nil, usageErrorf("the key of --unique must not be empty")
	case len(f.unique) > control.MaxUniqueKey:
		return nil, usageErrorf("the key of --unique has %d bytes; at most %d are allowed",
			len(f.unique), control.MaxUniqueKey)
	case given(flagUnique) && !given(flagFor):
		return nil, usageErrorf("--unique needs --for: how long the key refuses other pushes, for example --for 1h")
	case given(flagFor) && !given(flagUnique):
		return nil, usageErrorf("--for needs --unique KEY")
	case given(flagFor) && f.uniqueFor < time.Millisecond:
		return nil, usageErrorf("--for is %s, must be 1ms or more", f.uniqueFor)
	case !given(flagIn) && !given(flagAt) && !given(flagUnique):
		return nil, nil //nolint:nilnil // that there are none is an answer, not a failure
	}
	l := &later{PushOptions: queue.PushOptions{Delay: f.in, Unique: f.unique, UniqueFor: f.uniqueFor}}
	if given(flagIn) {
		l.due = "in " + duration.HumanDuration(f.in)
	}
	if !given(flagAt) {
		return l, nil
	}
	at, err := parseTime(f.at, now)
	if err != nil {
		return nil, err
	}
	if l.At = at; at.After(now) {
		l.due = "at " + at.Format("2006-01-02 15:04:05 -07:00")
	}
	return l, nil
}

// parseTime reads a time: of RFC 3339, or a local one with a day or without.
func parseTime(text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02 15:04", "2006-01-02 15:04:05"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04", "15:04:05"} {
		clock, err := time.Parse(layout, text)
		if err != nil {
			continue
		}
		on := func(day int) time.Time {
			return time.Date(now.Year(), now.Month(), day, clock.Hour(), clock.Minute(), clock.Second(), 0, now.Location())
		}
		if today := on(now.Day()); today.After(now) {
			return today, nil
		}
		return on(now.Day() + 1), nil
	}
	return time.Time{}, usageErrorf(`--at is %q, must be a time such as 2006-01-02T15:04:05Z, "2006-01-02 15:04" or 15:04`,
		text)
}

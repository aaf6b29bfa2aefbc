package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/offboard-dev/offboard/internal/control"
)

func (a *app) releaseCommand() *cobra.Command {
	var (
		f     queueFlags
		owner string
		force bool
		yes   bool
	)
	cmd := &cobra.Command{
		Use:   "release QUEUE",
		Short: "Give items back to their queue that nobody works on any more",
		Long: `Give claimed items back to the head of their queue, in their order, as if they had not been claimed.

That is for items whose ScaledJob is gone: it was deleted while the queue could not be reached, so that its claims are
still recorded. A ScaledJob that is there looks after its claims itself, and takes over those of one that had its name.
The queue is found where some other ScaledJob reads it, paused or not.

Items that are worked on would run twice. So nothing is given back, with exit code 5, while one of them has a Job, is
held by a runner whose lease has not ended, or belongs to a ScaledJob that is neither paused nor gone and is about to
make its Job. They are listed. --force gives them back all the same.

--owner takes only the claims of one owner: a ScaledJob as NAMESPACE/NAME, or a runner as "offboard queue" names it.
What is to be done is asked before, unless --yes is given.

` + queueHelp + "\n\n" + whereHelp + "\n\n" + exitHelp,
		Example: `  offboard release usertask
  offboard release usertask --owner shop/usertask --yes
  offboard release usertask -n shop --context production`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withQueue(cmd.Context(), &f, args[0], func(s source) error {
				return a.release(cmd.Context(), s, owner, force, yes)
			})
		},
	}
	cmd.Flags().StringVar(&owner, "owner", "", "give back only what this owner has claimed")
	cmd.Flags().BoolVar(&force, "force", false, "give back also items that are worked on, which then run twice")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask before")
	f.add(a, cmd)
	complete(cmd, "owner", a.completeFrom(&f.where, owners))
	cmd.ValidArgsFunction = firstOnly(a.completeFrom(&f.where, queueNames))
	return cmd
}

// owners returns the names under which ScaledJobs claim items.
func owners(ctx context.Context, t *target, namespace string) ([]string, error) {
	infos, err := t.ScaledJobs(ctx, namespace)
	var names []string
	for _, info := range infos {
		names = append(names, info.Object.Key().String())
	}
	return names, err
}

func (a *app) release(ctx context.Context, s source, owner string, force, yes bool) error {
	claims, err := s.claims(ctx)
	if err != nil {
		return err
	}
	if owner != "" {
		claims = slices.DeleteFunc(claims, func(i item) bool { return i.Owner != owner })
	}
	if len(claims) == 0 {
		by := ""
		if owner != "" {
			by = " by " + printable(owner, 0)
		}
		_, _ = fmt.Fprintf(a.Out, "no item of %s%s is claimed%s\n", s.name(), s.in(), by)
		return nil
	}
	busy, err := a.busy(ctx, s, claims)
	if err != nil {
		return err
	}
	if len(busy) > 0 {
		err := fmt.Errorf("%d of %s of %s would run twice:\n  %s", len(busy),
			plural(len(claims), "claimed item"), s.queue.Name, strings.Join(busy, "\n  "))
		if !force {
			return refusedError{fmt.Errorf("%w\nnothing was given back; --force does it all the same", err)}
		}
		_, _ = fmt.Fprintf(a.Err, "%s: %s\n", a.name(), safeText(err.Error()))
	}
	question := fmt.Sprintf("Give %s back to the head of %s%s?", plural(len(claims), "item"), s.name(), s.in())
	if !yes && !a.confirmed(question) {
		return errors.New("nothing was given back: answer with y, or give --yes")
	}
	refs := make([]control.ItemRef, len(claims))
	for i, claim := range claims {
		refs[i] = control.ItemRef{ID: claim.ID, Attempt: claim.Attempt}
	}
	done, err := s.change(ctx, control.GiveBack, refs)
	if err == nil || len(done) > 0 {
		_, _ = fmt.Fprintf(a.Out, "gave %s back to the head of %s%s\n", plural(len(done), "item"), s.name(), s.in())
	}
	if left := len(claims) - len(done); left > 0 && err == nil {
		_, _ = fmt.Fprintf(a.Out, "%s had been settled in the meantime\n", plural(left, "item"))
	}
	return err
}

// busy says of each claim that somebody works on, or is about to, who that is.
func (a *app) busy(ctx context.Context, s source, claims []item) ([]string, error) {
	active, err := s.claiming(ctx, claims)
	if err != nil {
		return nil, err
	}
	var busy []string
	for _, claim := range claims {
		namespace, name, _ := claim.ownerKey()
		why := ""
		switch {
		case claim.job != nil:
			job := claim.job.Job
			why = fmt.Sprintf("Job %s/%s is %s", job.Namespace, job.Name, stateOf(*claim.job))
			if finished(*claim.job) {
				why += ", and what that means for its item is not settled yet"
			}
		case claim.leased() && claim.At.After(a.now()):
			why = fmt.Sprintf("runner %s holds it for %s if it does not go on", claim.Owner,
				duration.HumanDuration(claim.At.Sub(a.now())))
		case active[claim.Owner]:
			why = fmt.Sprintf("ScaledJob %s/%s makes its Job; pause it first", namespace, name)
		default:
			continue
		}
		busy = append(busy, printable(fmt.Sprintf("item %s, attempt %d: %s", claim.ID, claim.Attempt, why), 0))
	}
	return busy, nil
}

// claiming returns the owners among those of the claims that are ScaledJobs which hand out items at present.
func (s source) claiming(ctx context.Context, claims []item) (map[string]bool, error) {
	active := map[string]bool{}
	seen := map[string]bool{}
	for _, claim := range claims {
		namespace, _, ok := claim.ownerKey()
		if !ok || seen[namespace] {
			continue
		}
		seen[namespace] = true
		infos, err := s.ScaledJobs(ctx, namespace)
		if err != nil && control.ReasonOf(err) != control.NotFound {
			return nil, err
		}
		for _, info := range infos {
			sj := info.Object
			active[sj.Key().String()] = sj.ClaimsItems() && !sj.PausedByAnnotation()
		}
	}
	return active, nil
}

// confirmed asks, and tells whether the answer is yes.
func (a *app) confirmed(question string) bool {
	_, _ = fmt.Fprintf(a.Err, "%s [y/N] ", question)
	answer, err := bufio.NewReader(io.LimitReader(a.In, 1<<10)).ReadString('\n')
	if err != nil {
		_, _ = fmt.Fprintln(a.Err) // the line of the question has no end yet
	}
	return slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(answer)))
}

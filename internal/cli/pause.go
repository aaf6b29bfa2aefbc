package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/kube/backend"
)

func (a *app) pauseCommand() *cobra.Command {
	return a.pausingCommand(true, &cobra.Command{
		Use:   "pause NAME...",
		Short: "Start no new Jobs for ScaledJobs",
		Long: `Start no new Jobs for ScaledJobs until they are resumed. Jobs that run go on, and items wait in their queues.

On a cluster, that is the annotation ` + v1alpha1.AnnotationPaused + `, as in KEDA. On this machine, "offboard up"
keeps it beside the manifest, which stays as it is; it holds after a restart too.

To pause what is paused already is no error.

` + whereHelp + "\n\n" + exitHelp,
		Example: `  offboard pause usertask
  offboard pause usertask mails -n shop --context production`,
	})
}

func (a *app) resumeCommand() *cobra.Command {
	return a.pausingCommand(false, &cobra.Command{
		Use:   "resume NAME...",
		Short: "Start new Jobs again for paused ScaledJobs",
		Long: `Start new Jobs again for ScaledJobs that are paused.

On a cluster, that removes the annotation ` + v1alpha1.AnnotationPaused + `. On this machine, a ScaledJob
whose own manifest has the annotation is resumed by removing it there.

To resume what is not paused is no error.

` + whereHelp + "\n\n" + exitHelp,
		Example: `  offboard resume usertask
  offboard resume usertask mails -n shop --context production`,
	})
}

// pausingCommand completes the command that pauses or resumes.
func (a *app) pausingCommand(pause bool, cmd *cobra.Command) *cobra.Command {
	var w where
	cmd.Args = usageArgs(cobra.MinimumNArgs(1))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withTarget(cmd.Context(), &w, backend.Need{}, func(t *target) error {
			for _, arg := range args {
				if err := a.pause(cmd.Context(), t, w.namespace, scaledJobName(arg), pause); err != nil {
					return err
				}
			}
			return nil
		})
	}
	a.whereVar(cmd, &w)
	cmd.ValidArgsFunction = a.completeFrom(&w, scaledJobNames)
	return cmd
}

func (a *app) pause(ctx context.Context, t *target, namespace, name string, pause bool) error {
	changed, err := t.SetPaused(ctx, namespace, name, pause)
	if control.ReasonOf(err) == control.NotFound {
		if names, listErr := scaledJobNames(ctx, t, namespace); listErr != nil {
			err = listErr // for example, there are no ScaledJobs on the cluster at all
		} else {
			err = unknown(v1alpha1.KindScaledJob, name, namespace, names)
		}
	}
	if err != nil {
		return err
	}
	what := map[[2]bool]string{
		{true, true}: "paused", {true, false}: "is already paused",
		{false, true}: "resumed", {false, false}: "is not paused",
	}[[2]bool{pause, changed}]
	_, _ = fmt.Fprintf(a.Out, "scaledjob.keda.sh/%s %s%s\n", printable(name, 0), what, t.in())
	return nil
}

package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/local"
	"github.com/offboard-dev/offboard/internal/manifest"
	"github.com/offboard-dev/offboard/internal/trigger/all"
)

// The places that manifests can be checked for.
const (
	forLocal   = "local"
	forCluster = "cluster"
)

type validateFlags struct {
	files  []string
	place  choice
	output choice
	strict bool
}

func (a *app) validateCommand() *cobra.Command {
	f := validateFlags{
		place:  choice{value: forLocal, allowed: []string{forLocal, forCluster}},
		output: choice{allowed: []string{outputJSON}},
	}
	cmd := &cobra.Command{
		Use:   "validate [-f] PATH...",
		Short: "Check manifests and say where they are wrong",
		Long: `Check the ScaledJobs, TriggerAuthentications, Secrets and ConfigMaps in files, in the YAML and JSON files of
folders, and on standard input ("-"). Documents of other kinds are left alone.

Each problem is a line FILE:LINE:COLUMN: FIELD: what is wrong and what would be right. Unknown fields are errors.
--for local, the default, also refuses what one machine cannot do, such as a container without a command; --for
cluster does not.

The exit code is 0 when there is no error, also when there are warnings, unless --strict is given; otherwise 2.

` + exitHelp,
		Example: `  offboard validate -f examples/usertask/
  offboard validate scaledjob.yaml secret.yaml --for cluster
  helm template chart/ | offboard validate - --strict
  offboard validate -f . -o json | jq '.problems[].message'`,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.validate(&f, slices.Concat(f.files, args))
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.files, "filename", "f", nil, "file or folder, or - for standard input; may be repeated")
	flags.BoolVar(&f.strict, "strict", false, "treat warnings as errors")
	flags.Var(&f.place, "for", "where the manifests are to work: local, cluster")
	complete(cmd, "for", cobra.FixedCompletions(f.place.allowed, cobra.ShellCompDirectiveNoFileComp))
	choiceVar(cmd, &f.output, "output", "o", "output format")
	return cmd
}

// verdict is what -o json prints.
type verdict struct {
	Valid bool `json:"valid"`
	// ScaledJobs is the number of them that were read.
	ScaledJobs int               `json:"scaledJobs"`
	Errors     int               `json:"errors"`
	Warnings   int               `json:"warnings"`
	Problems   manifest.Problems `json:"problems"`
}

func (a *app) validate(f *validateFlags, paths []string) error {
	if len(paths) == 0 {
		return usageErrorf("there is nothing to check: name a file or a folder, or - for standard input")
	}
	set := manifest.Read(a.In, paths...)
	check := local.Validate
	if f.place.value == forCluster {
		check = manifest.ValidateForCluster
	}
	problems := check(set, all.Types())
	v := verdict{
		Errors: len(problems.Of(manifest.Error)), Warnings: len(problems.Of(manifest.Warning)), Problems: problems,
	}
	for range manifest.All[*v1alpha1.ScaledJob](set) {
		v.ScaledJobs++
	}
	v.Valid = v.Errors == 0 && (v.Warnings == 0 || !f.strict)
	if err := a.printVerdict(f, v); err != nil {
		return err
	}
	if !v.Valid {
		return exitCode(exitUsage)
	}
	return nil
}

func (a *app) printVerdict(f *validateFlags, v verdict) error {
	if f.output.value == outputJSON {
		return printObject(a.Out, outputJSON, v)
	}
	if err := v.Problems.Print(a.Out); err != nil {
		return err
	}
	word := "valid"
	if !v.Valid {
		word = "not valid"
	}
	summary := fmt.Sprintf("%s: %s", plural(v.ScaledJobs, "ScaledJob"), word)
	if v.Errors > 0 {
		summary += ", " + plural(v.Errors, "error")
	}
	if v.Warnings > 0 {
		summary += ", " + plural(v.Warnings, "warning")
	}
	_, err := fmt.Fprintln(a.Out, summary)
	return err
}

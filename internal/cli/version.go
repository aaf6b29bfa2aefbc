package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/offboard-dev/offboard/internal/control"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, and what the running offboard up says of itself",
		Long: `Print the version of this program and, when "offboard up" is running, its version, process and addresses.

` + exitHelp,
		Example: `  offboard version
  offboard --version`,
		Args:              usageArgs(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, _ = fmt.Fprintf(a.Out, "offboard %s (%s, %s/%s)\n", a.version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			up, err := a.openUp()
			if err != nil {
				return err
			}
			defer up.Close()
			info, err := up.Info(cmd.Context())
			if control.ReasonOf(err) == control.NotRunning {
				return nil
			}
			if err != nil {
				return err
			}
			_, _ = fmt.Fprintf(a.Out, "up %s, pid %d\n  data folder  %s\n  manifests    %s\n  redis        %s\n",
				printable(info.Version, 0), info.PID, printable(info.DataDir, 0),
				printable(strings.Join(info.Manifests, ", "), 0), orDash(printable(info.Redis, 0)))
			return nil
		},
	}
}

// version returns the version that the build was given, else what Go noted in the program.
func (a *app) version() string {
	if a.Version != "" {
		return a.Version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version, modified := info.Main.Version, ""
	for _, setting := range info.Settings {
		switch {
		case setting.Key == "vcs.revision" && (version == "" || version == "(devel)"):
			version = setting.Value[:min(12, len(setting.Value))]
		case setting.Key == "vcs.modified" && setting.Value == "true" && !strings.Contains(version, "dirty"):
			modified = "-dirty"
		}
	}
	if version == "" {
		return "unknown"
	}
	return version + modified
}

package cli

import (
	"github.com/spf13/cobra"

	"github.com/offboard-dev/offboard/internal/crds"
)

func (a *app) crdsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "crds",
		Short: "Print the CustomResourceDefinitions for a cluster",
		Long: `Print the CustomResourceDefinitions of ScaledJob, TriggerAuthentication and ClusterTriggerAuthentication
(keda.sh/v1alpha1) as YAML.

They accept every manifest that KEDA's accept. A cluster on which KEDA is installed has them already and needs none of
these: Offboard works with KEDA's, and "offboard operator --install-crds" leaves those as they are.

` + exitHelp,
		Example: `  offboard crds | kubectl apply --server-side -f -
  offboard crds > crds.yaml`,
		Args:              usageArgs(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			_, err := a.Out.Write(crds.YAML())
			return err
		},
	}
}

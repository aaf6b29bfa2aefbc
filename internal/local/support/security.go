package support

import (
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

const moreRights = "a process has the rights of whoever runs offboard and no others: remove it, and run offboard " +
	"with what the program needs"

// Hardening is ignored because a process here has the rights of the user who started it anyway. What asks for rights,
// and what forbids those of root while offboard runs as root, cannot be ignored.
var podSecurityRules = rules{
	"runAsUser": runAsUser, "runAsGroup": runAsGroup, "runAsNonRoot": runAsNonRoot,
	"sysctls":        refused("kernel parameters are this machine's own: remove it, and set them with sysctl"),
	"windowsOptions": refused("this is for Windows containers: remove it"),

	"supplementalGroups": ignored(hardening), "supplementalGroupsPolicy": ignored(hardening),
	"fsGroup":             ignored(hardening),
	"fsGroupChangePolicy": ignored(hardening), "seccompProfile": ignored(hardening), "appArmorProfile": ignored(hardening),
	"seLinuxOptions": ignored(hardening), "seLinuxChangePolicy": ignored(hardening),
}

var securityRules = rules{
	"runAsUser": runAsUser, "runAsGroup": runAsGroup, "runAsNonRoot": runAsNonRoot,
	"capabilities": deeper, "privileged": refusedIf(true, moreRights),
	"windowsOptions": refused("this is for Windows containers: remove it"),

	"readOnlyRootFilesystem":   ignoredIf(true, hardening),
	"allowPrivilegeEscalation": ignoredIf(false, hardening),
	"procMount":                ignored(hardening),
	"seccompProfile":           ignored(hardening), "appArmorProfile": ignored(hardening),
	"seLinuxOptions": ignored(hardening),
}

// runAsUser refuses what would give the program fewer rights than it needs, or more than it may have.
func runAsUser(c *checker, path *field.Path, value reflect.Value) {
	switch user := reflect.Indirect(value).Int(); {
	case user == c.host.user:
	case user == 0:
		c.refuse(path, "the program is to run as root, and processes run as whoever runs offboard: run offboard as root, or "+
			"remove it")
	case c.host.user == 0:
		c.refuse(path, fmt.Sprintf("the program is to run as user %d, and processes run as whoever runs offboard, which is "+
			"root: run offboard as that user", user))
	default:
		c.ignore(path, hardening)
	}
}

func runAsGroup(c *checker, path *field.Path, value reflect.Value) {
	if reflect.Indirect(value).Int() != c.host.group {
		c.ignore(path, hardening)
	}
}

func runAsNonRoot(c *checker, path *field.Path, value reflect.Value) {
	if reflect.Indirect(value).Bool() && c.host.user == 0 {
		c.refuse(path, "the program must not run as root, and processes run as whoever runs offboard, which is root: run "+
			"offboard as another user")
	}
}

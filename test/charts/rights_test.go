package charts

import (
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// rightsTimeout is how long the API server may take to learn of rights. It takes some milliseconds where the machine is
// idle.
const rightsTimeout = 30 * time.Second

// workNeeds are what the operator needs in a namespace whose ScaledJobs it serves, as "verb resource.group/name".
var workNeeds = []string{
	"get scaledjobs.keda.sh", "list scaledjobs.keda.sh", "watch scaledjobs.keda.sh", "patch scaledjobs.keda.sh",
	"patch scaledjobs:status.keda.sh", "update scaledjobs:finalizers.keda.sh",
	"get triggerauthentications.keda.sh", "list triggerauthentications.keda.sh", "watch triggerauthentications.keda.sh",
	"patch triggerauthentications.keda.sh",
	"get jobs.batch", "list jobs.batch", "watch jobs.batch", "create jobs.batch", "patch jobs.batch",
	"delete jobs.batch",
	"list pods", "watch pods", "delete pods", "get pods:log",
	"create events", "patch events", "list events", "watch events",
	"get secrets/any", "create secrets", "delete secrets/any", "get configmaps/any",
}

// operatorRights asks the API server what the operator of the defaults may do, in the cluster and for itself, and what
// it may not.
func operatorRights(w world) {
	const user = "system:serviceaccount:" + system + ":offboard"
	for _, need := range workNeeds {
		w.may(user, "anywhere", need, true)
		w.may(user, "", need, true)
	}
	for _, need := range []string{
		"get clustertriggerauthentications.keda.sh", "list clustertriggerauthentications.keda.sh",
		"watch clustertriggerauthentications.keda.sh", "patch clustertriggerauthentications.keda.sh",
		"get validatingwebhookconfigurations.admissionregistration.k8s.io/offboard." + system,
		"patch validatingwebhookconfigurations.admissionregistration.k8s.io/offboard." + system,
	} {
		w.may(user, "", need, true)
	}
	for _, need := range []string{
		"create leases.coordination.k8s.io", "list leases.coordination.k8s.io", "watch leases.coordination.k8s.io",
		"update leases.coordination.k8s.io/any", "delete leases.coordination.k8s.io/any",
		"create secrets", "update secrets/offboard-webhook-cert",
	} {
		w.may(user, system, need, true)
	}
	for _, never := range []string{
		"* *.*", "* secrets", "list secrets", "watch secrets", "update secrets", "patch secrets",
		"deletecollection secrets", "list configmaps", "watch configmaps", "update configmaps",
		"get pods", "create pods", "deletecollection pods", "create pods:exec", "create pods:portforward",
		"create pods:attach",
		"update jobs.batch", "deletecollection jobs.batch",
		"create scaledjobs.keda.sh", "update scaledjobs.keda.sh", "delete scaledjobs.keda.sh",
		"create serviceaccounts:token", "impersonate serviceaccounts", "impersonate users",
		"create roles.rbac.authorization.k8s.io", "bind clusterroles.rbac.authorization.k8s.io",
		"escalate clusterroles.rbac.authorization.k8s.io",
		"get nodes", "list namespaces", "create leases.coordination.k8s.io",
		"update customresourcedefinitions.apiextensions.k8s.io",
		"list validatingwebhookconfigurations.admissionregistration.k8s.io",
		"create validatingwebhookconfigurations.admissionregistration.k8s.io",
		"patch validatingwebhookconfigurations.admissionregistration.k8s.io/another",
		"delete validatingwebhookconfigurations.admissionregistration.k8s.io/offboard." + system,
	} {
		w.may(user, "", never, false)
		w.may(user, "anywhere", never, false)
	}
	for _, never := range []string{
		"list secrets", "watch secrets", "update secrets/another",
		"patch leases.coordination.k8s.io", "deletecollection leases.coordination.k8s.io",
	} {
		w.may(user, system, never, false)
	}
}

// may asks the API server whether a user may do something, as `kubectl auth can-i` does. An empty namespace means in
// all, or a resource that belongs to none. The server learns of rights that were granted or taken some time later.
func (w world) may(user, namespace, what string, want bool) {
	w.Helper()
	verb, rest, _ := strings.Cut(what, " ")
	resource, name, _ := strings.Cut(rest, "/")
	resource, group, _ := strings.Cut(resource, ".")
	resource, subresource, _ := strings.Cut(resource, ":")
	account := strings.Split(user, ":")
	question := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User:   user,
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + account[2], "system:authenticated"},
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: namespace, Verb: verb, Group: group, Resource: resource, Subresource: subresource, Name: name,
		},
	}}
	deadline := time.Now().Add(rightsTimeout)
	for {
		review, err := w.Client().AuthorizationV1().SubjectAccessReviews().Create(w.Context(), question, metav1.CreateOptions{})
		if err != nil {
			w.Fatal(err)
		}
		if review.Status.Allowed == want {
			return
		}
		if time.Now().After(deadline) {
			w.Errorf("%s may %s in namespace %q: %t, want %t", user, what, namespace, review.Status.Allowed, want)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

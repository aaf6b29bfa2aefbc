package support

import (
	"reflect"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What is said of several fields. Ignored fields that share a message are told of once together.
const (
	indexed   = "Indexed Jobs are not supported on one machine: remove it"
	files     = "a process sees the files of this machine: remove it, and let the program use a path that exists here"
	noProbe   = "nothing probes a process: remove it; a Job has only to end"
	terminal  = "a process has no standard input or terminal: remove it"
	names     = "a process uses the names and addresses that this machine knows: remove it"
	placement = "ignored on one machine: it says where and in which order Pods run on a cluster"
	accounted = "ignored on one machine: resources are neither reserved nor limited"
	hardening = "ignored on one machine, as hardening is: processes run with the rights of whoever runs offboard"
	sidecar   = "sidecars and restart policies of single containers are not supported on one machine: use the Pod's"
	account   = "ignored on one machine: there are no service accounts and no tokens of them"
	pulling   = "ignored on one machine: no image is pulled"
	message   = "ignored on one machine: no termination message is read, the output tells how a container ended"
)

// classified holds a rule for every field of the types that make up a Job's specification. A test makes sure that none
// is missing.
var classified map[reflect.Type]rules

// The tables refer to rules that walk into the tables.
func init() { //nolint:gochecknoinits // a variable's initializer must not depend on the variable
	classified = map[reflect.Type]rules{
		reflect.TypeFor[batchv1.JobSpec]():           jobRules,
		reflect.TypeFor[corev1.PodTemplateSpec]():    {"metadata": deeper, "spec": podSpec},
		reflect.TypeFor[corev1.PodSpec]():            podRules,
		reflect.TypeFor[corev1.Container]():          containerRules,
		reflect.TypeFor[corev1.PodSecurityContext](): podSecurityRules,
		reflect.TypeFor[corev1.SecurityContext]():    securityRules,
		reflect.TypeFor[metav1.ObjectMeta]():         metadataRules,
		reflect.TypeFor[corev1.PodOS]():              {"name": operatingSystem},
		reflect.TypeFor[corev1.Capabilities]():       {"add": refused(moreRights), "drop": ignored(hardening)},

		reflect.TypeFor[batchv1.PodFailurePolicy](): {"rules": deeper},
		reflect.TypeFor[batchv1.PodFailurePolicyRule](): {
			"action": failIndex, "onExitCodes": deeper, "onPodConditions": deeper,
		},
		reflect.TypeFor[batchv1.PodFailurePolicyOnExitCodesRequirement](): {
			"containerName": honoured, "operator": honoured, "values": honoured,
		},
		reflect.TypeFor[batchv1.PodFailurePolicyOnPodConditionsPattern](): {"type": honoured, "status": honoured},

		reflect.TypeFor[corev1.EnvFromSource]():        {"prefix": honoured, "configMapRef": deeper, "secretRef": deeper},
		reflect.TypeFor[corev1.ConfigMapEnvSource]():   {"LocalObjectReference": deeper, "optional": honoured},
		reflect.TypeFor[corev1.SecretEnvSource]():      {"LocalObjectReference": deeper, "optional": honoured},
		reflect.TypeFor[corev1.LocalObjectReference](): {"name": honoured},
		reflect.TypeFor[corev1.EnvVar]():               {"name": honoured, "value": honoured, "valueFrom": deeper},
		reflect.TypeFor[corev1.EnvVarSource](): {
			"fieldRef": deeper, "configMapKeyRef": deeper, "secretKeyRef": deeper,
			"resourceFieldRef": refused("there are no reserved resources on one machine: give the variable a value instead"),
			"fileKeyRef":       refused("there are no volumes on one machine: use a Secret or a ConfigMap instead"),
		},
		reflect.TypeFor[corev1.ConfigMapKeySelector](): {
			"LocalObjectReference": deeper, "key": honoured, "optional": honoured,
		},
		reflect.TypeFor[corev1.SecretKeySelector](): {
			"LocalObjectReference": deeper, "key": honoured, "optional": honoured,
		},
		reflect.TypeFor[corev1.ObjectFieldSelector](): {"apiVersion": honoured, "fieldPath": fieldPath},
	}
}

var jobRules = rules{
	"parallelism": honoured, "completions": honoured, "activeDeadlineSeconds": honoured, "backoffLimit": honoured,
	"ttlSecondsAfterFinished": honoured, "suspend": honoured, "podReplacementPolicy": honoured,
	"template": deeper, "podFailurePolicy": deeper,
	"completionMode":       completionMode,
	"backoffLimitPerIndex": refused(indexed),
	"maxFailedIndexes":     refused(indexed),
	"successPolicy":        refused(indexed),
	"selector":             refused("a Job's selector is made for it: remove it"),
	"manualSelector":       refusedIf(true, "Pods are never shared by Jobs: remove it"),
	"managedBy":            managedBy,
}

var podRules = rules{
	"containers": deeper, "initContainers": deeper,
	"restartPolicy": honoured, "terminationGracePeriodSeconds": honoured, "activeDeadlineSeconds": honoured,
	// A process is in these namespaces of the machine anyway.
	"hostNetwork": honoured, "hostPID": honoured, "hostIPC": honoured,
	"securityContext": deeper, "os": deeper,

	"volumes":               refused(files),
	"ephemeralContainers":   refused("ephemeral containers cannot be in a template: remove them"),
	"shareProcessNamespace": refusedIf(true, "the containers do not have a process namespace of their own: remove it"),
	"hostAliases":           refused(names), "dnsConfig": refused(names), "hostname": refused(names),
	"subdomain": refused(names), "hostnameOverride": refused(names), "setHostnameAsFQDN": refusedIf(true, names),
	"runtimeClassName": refused("there is no container runtime on one machine: remove it"),
	"hostUsers":        refusedIf(false, "a process has the users of this machine: remove it"),
	"schedulingGates":  refused("nothing on one machine would open the gate: remove it"),
	"resourceClaims":   refused("devices are not allocated on one machine: remove it"),

	"nodeSelector": ignored(placement), "nodeName": ignored(placement), "affinity": ignored(placement),
	"tolerations": ignored(placement), "topologySpreadConstraints": ignored(placement),
	"schedulerName":     ignored(placement),
	"priorityClassName": ignored(placement), "priority": ignored(placement), "preemptionPolicy": ignored(placement),
	"workloadRef": ignored(placement),
	"resources":   ignored(accounted), "overhead": ignored(accounted),
	"serviceAccountName": ignored(account), "serviceAccount": ignored(account),
	"automountServiceAccountToken": ignoredIf(true, account),
	"imagePullSecrets":             ignored(pulling),
	"dnsPolicy":                    ignored("ignored on one machine: a process resolves names as the machine does"),
	"readinessGates":               ignored("ignored on one machine: readiness does not matter to a Job"),
	"enableServiceLinks":           ignoredIf(true, "ignored on one machine: there are no Services to be told of"),
}

var containerRules = rules{
	"name": honoured, "command": honoured, "workingDir": honoured, "env": deeper, "envFrom": deeper,
	"image": honoured, "args": honoured, // judged by container, together with command
	"securityContext": deeper,

	"volumeMounts": refused(files), "volumeDevices": refused(files),
	"livenessProbe": refused(noProbe), "readinessProbe": refused(noProbe), "startupProbe": refused(noProbe),
	"lifecycle":          refused("hooks are not run on one machine: let the program do it itself, or remove it"),
	"restartPolicy":      refused(sidecar),
	"restartPolicyRules": refused("restart rules are not supported on one machine: use the Pod's restartPolicy"),
	"stdin":              refused(terminal), "stdinOnce": refused(terminal), "tty": refused(terminal),

	"resources": ignored(accounted), "resizePolicy": ignored(accounted),
	"ports":                  ignored("ignored on one machine: a process listens on whatever port it opens"),
	"terminationMessagePath": ignored(message), "terminationMessagePolicy": ignored(message),
	"imagePullPolicy": ignored(pulling),
}

// metadataRules are honoured for labels and annotations. The rest has no meaning in a template anywhere.
var metadataRules = rules{
	"name": honoured, "generateName": honoured, "namespace": honoured, "selfLink": honoured, "uid": honoured,
	"resourceVersion": honoured, "generation": honoured, "creationTimestamp": honoured, "deletionTimestamp": honoured,
	"deletionGracePeriodSeconds": honoured, "labels": honoured, "annotations": honoured, "ownerReferences": honoured,
	"finalizers": honoured, "managedFields": honoured,
}

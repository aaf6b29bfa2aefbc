{{/* What the operator needs in each namespace whose ScaledJobs it serves. */}}
{{- define "offboard.workRules" -}}
# A patch takes KEDA's finalizer off what is deleted, since KEDA is not there to do it, and puts Offboard's on a ScaledJob
# with delivery by claim and takes it off again.
- apiGroups: [keda.sh]
  resources: [scaledjobs, triggerauthentications]
  verbs: [get, list, watch, patch]
- apiGroups: [keda.sh]
  resources: [scaledjobs/status]
  verbs: [patch]
# Owner references of Jobs block their ScaledJob's deletion, which some clusters allow to those only who may do this.
- apiGroups: [keda.sh]
  resources: [scaledjobs/finalizers]
  verbs: [update]
# A patch takes Offboard's finalizer off a Job whose item is settled.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
# Triggers of type kubernetes-workload count Pods. A Job that is deleted before its item is settled stays until then; its
# Pods are ended at once.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
# The end of the log of a failed Job is kept with its item.
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
# An item that a Job gets as a file is in a Secret that the operator makes and deletes.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, delete]
# A metrics-api trigger may ask each Pod of a Service.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list]
# It writes what happened to a ScaledJob, and reads why Pods of a Job were refused.
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch, list, watch]
{{ include "offboard.parameterRules" . }}
{{- end -}}

{{/* Secrets and ConfigMaps hold triggers' parameters. They are read one by one, by name: never listed, never watched. */}}
{{- define "offboard.parameterRules" -}}
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [get]
{{- end -}}

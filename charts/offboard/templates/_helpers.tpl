{{/* The name of the chart in labels. */}}
{{- define "offboard.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of what is in the release's namespace; short enough for every suffix that is added to it. */}}
{{- define "offboard.fullname" -}}
{{- $name := include "offboard.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The name of what belongs to no namespace: two releases of one name in two namespaces do not share it. */}}
{{- define "offboard.clusterName" -}}
{{- printf "%s.%s" (include "offboard.fullname" .) .Release.Namespace -}}
{{- end -}}

{{- define "offboard.webhookName" -}}
{{- include "offboard.fullname" . }}-webhook
{{- end -}}

{{- define "offboard.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "offboard.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is required when serviceAccount.create is false: the name of a ServiceAccount in the release's namespace" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "offboard.selectorLabels" -}}
app.kubernetes.io/name: {{ include "offboard.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* The name in labels of the Pod that releases everything before an uninstall. */}}
{{- define "offboard.releaseName" -}}
{{- include "offboard.name" . | trunc 55 | trimSuffix "-" }}-release
{{- end -}}

{{/* Annotations of what is there during `helm uninstall` only; the argument is the weight. */}}
{{- define "offboard.uninstallHook" -}}
helm.sh/hook: pre-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{- define "offboard.labels" -}}
{{ include "offboard.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "offboard.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The subject of every binding. */}}
{{- define "offboard.subjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "offboard.serviceAccountName" . | quote }}
    namespace: {{ .Release.Namespace | quote }}
{{- end -}}

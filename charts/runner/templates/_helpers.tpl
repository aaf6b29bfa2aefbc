{{/* A Job's name adds to it, and must fit into a label. */}}
{{- define "runner.fullname" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 53 | trimSuffix "-" -}}
{{- end -}}

{{- define "runner.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "runner.secretName" -}}
{{- default (include "runner.fullname" .) .Values.redis.existingSecret -}}
{{- end -}}

{{- define "runner.list" -}}
{{- $list := required "redis.list is required: the name of the Redis list whose items become Jobs, for example --set redis.list=usertask" .Values.redis.list -}}
{{- if not (trim $list) -}}
{{- fail "redis.list is nothing but space: it must be the name of the Redis list whose items become Jobs" -}}
{{- end -}}
{{- $list -}}
{{- end -}}

{{/* What redis-cli must be told to reach the list. */}}
{{- define "runner.redisFlags" -}}
{{- with .Values.redis -}}
{{- if not .existingSecret }} -h {{ .host }} -p {{ .port }}{{ end -}}
{{- if .database }} -n {{ .database }}{{ end -}}
{{- if .auth.enabled -}}
{{- with .auth.user }} --user {{ . }}{{ end }} --askpass
{{- end -}}
{{- if .tls.enabled }} --tls{{ if .tls.privateCA }} --cacert ca.crt{{ end }}{{ end -}}
{{- end -}}
{{- end -}}

{{- define "runner.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether the trigger needs a TriggerAuthentication. */}}
{{- define "runner.authenticates" -}}
{{- if or .Values.redis.auth.enabled (and .Values.redis.tls.enabled .Values.redis.tls.privateCA) -}}true{{- end -}}
{{- end -}}

{{/* The folder of the private authority's certificate in the container. */}}
{{- define "runner.caFolder" -}}/etc/redis-ca{{- end -}}

{{/* What the Pods of the Deployment and that of the uninstall have in common. */}}
{{- define "offboard.podBasics" -}}
serviceAccountName: {{ include "offboard.serviceAccountName" . | quote }}
automountServiceAccountToken: true
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.authFiles }}
volumes:
  - name: auth
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end -}}

{{- define "offboard.commonArgs" -}}
- --log-level={{ .Values.log.level }}
- --log-format={{ .Values.log.format }}
{{- with .Values.watch.namespaces }}
- --namespaces={{ join "," . }}
{{- end }}
{{- with .Values.watch.selector }}
{{- $_ := include "offboard.selectorExpressions" $ }}
- {{ printf "--selector=%s" . | quote }}
{{- end }}
- --cluster-object-namespace={{ default .Release.Namespace .Values.clusterObjectNamespace }}
{{- if .Values.authFiles }}
- --filepath-auth-root-path=/etc/offboard/auth
{{- end }}
- --leader-elect={{ .Values.leaderElection.enabled }}
- --leader-election-namespace={{ .Release.Namespace }}
{{- end -}}

{{- define "offboard.containerBasics" -}}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
{{- with .Values.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .Values.authFiles }}
volumeMounts:
  - name: auth
    mountPath: /etc/offboard/auth
    readOnly: true
{{- end }}
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* It may be empty. */}}
{{- define "offboard.placement" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

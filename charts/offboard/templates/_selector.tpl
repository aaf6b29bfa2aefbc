{{/* watch.selector as matchExpressions. What these cannot say (< and >) is left out: the webhook is asked then about more
than it looks at. */}}
{{- define "offboard.selectorExpressions" -}}
{{- $key := `[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?` -}}
{{- $value := `[A-Za-z0-9._-]*` -}}
{{- $list := printf `%s(?:\s*,\s*%s)*` $value $value -}}
{{- $one := printf `(?:!\s*%s|%s(?:\s+(?:in|notin)\s*\(\s*%s\s*\)|\s*(?:==|=|!=|<|>)\s*%s)?)` $key $key $list $value -}}
{{- $selector := trim .Values.watch.selector -}}
{{- if not (regexMatch (printf `^%s(?:\s*,\s*%s)*$` $one $one) $selector) -}}
{{- fail (printf "watch.selector is %q, which is no label selector: give one such as \"team=blue,tier!=test\" or \"tier in (gold, silver)\"" .Values.watch.selector) -}}
{{- end -}}
{{- range regexFindAll $one $selector -1 }}
{{- $name := regexFind $key . }}
{{- $rest := trimPrefix $name . | trim }}
{{- if hasPrefix "!" . }}
- key: {{ $name | quote }}
  operator: DoesNotExist
{{- else if not $rest }}
- key: {{ $name | quote }}
  operator: Exists
{{- else if regexMatch `^[<>]` $rest }}
{{- else }}
- key: {{ $name | quote }}
  operator: {{ ternary "NotIn" "In" (regexMatch `^(?:notin|!=)` $rest) }}
  values:
    {{- $values := regexReplaceAll `^(?:(?:in|notin)\s*\(|==|=|!=)|\)$` $rest "" }}
    {{- range splitList "," $values | uniq }}
    - {{ trim . | quote }}
    {{- end }}
{{- end }}
{{- end }}
{{- end -}}

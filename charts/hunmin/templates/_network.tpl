{{/* Edges of the network that several policies have. A list of destinations that is empty means everywhere, at that port. */}}

{{/* The pods of some parts of the release, as JSON: (dict "root" $ "parts" (list "gateway")). */}}
{{- define "hunmin.pods" -}}
{{- dict "matchLabels" (include "hunmin.release" .root | fromYaml)
      "matchExpressions" (list (dict "key" "app.kubernetes.io/component" "operator" "In" "values" .parts)) | toJson -}}
{{- end -}}

{{/* The services of the release, as JSON. */}}
{{- define "hunmin.enabled" -}}
{{- $parts := list -}}
{{- range $part, $service := .Values.services }}{{ if $service.enabled }}{{ $parts = append $parts $part }}{{ end }}{{ end -}}
{{- toJson $parts -}}
{{- end -}}

{{- define "hunmin.toPods" -}}
- to: [{podSelector: {{ include "hunmin.pods" (dict "root" .root "parts" (list .part)) }}}]
  ports: [{port: {{ .port }}}]
{{- end -}}

{{- define "hunmin.toDatabase" -}}
{{- if .Values.dev.postgresql.enabled -}}
{{ include "hunmin.toPods" (dict "root" . "part" "postgresql" "port" 5432) }}
{{- else -}}
- to: {{ toJson .Values.networkPolicy.to.database }}
  ports: [{port: {{ .Values.database.port }}}]
{{- end -}}
{{- end -}}

{{- define "hunmin.toKafka" -}}
{{- if .Values.dev.kafka.enabled -}}
{{ include "hunmin.toPods" (dict "root" . "part" "kafka" "port" 9092) }}
{{- else if .Values.kafka.servers -}}
{{- $ports := list -}}
{{- range splitList "," .Values.kafka.servers }}{{ $ports = append $ports (dict "port" (splitList ":" . | last | atoi)) }}{{ end -}}
- to: {{ toJson .Values.networkPolicy.to.kafka }}
  ports: {{ uniq $ports | toJson }}
{{- end -}}
{{- end -}}

{{- define "hunmin.toBlobs" -}}
{{- if .Values.dev.s3.enabled -}}
{{ include "hunmin.toPods" (dict "root" . "part" "s3" "port" 8080) }}
{{- else -}}
- to: {{ toJson .Values.networkPolicy.to.blobs }}
  ports: [{port: {{ include "hunmin.port" (dict "url" (.Values.blobs.endpoint | default "https://s3")) }}}]
{{- end -}}
{{- end -}}

{{- define "hunmin.toOidc" -}}
{{- if .Values.dev.keycloak.enabled -}}
{{ include "hunmin.toPods" (dict "root" . "part" "keycloak" "port" 8080) }}
{{- else if .Values.oidc.issuer -}}
- to: {{ toJson .Values.networkPolicy.to.oidc }}
  ports: [{port: {{ include "hunmin.port" (dict "url" (include "hunmin.oidcInternal" .)) }}}]
{{- end -}}
{{- end -}}

{{/* Where models are fetched from; those in the blob store are reached by that edge. */}}
{{- define "hunmin.toModels" -}}
{{- $edges := list -}}
{{- $ports := list -}}
{{- range .Values.models }}
{{- $url := .url | default "" -}}
{{- if hasPrefix "http" $url }}{{ $ports = append $ports (dict "port" (include "hunmin.port" (dict "url" $url) | atoi)) }}{{ end -}}
{{- if hasPrefix "s3" $url }}{{ $edges = list (include "hunmin.toBlobs" $) }}{{ end -}}
{{- end }}
{{- if $ports }}{{ $edges = append $edges (printf "- to: %s\n  ports: %s" (toJson .Values.networkPolicy.to.models) (uniq $ports | toJson)) }}{{ end -}}
{{- join "\n" $edges -}}
{{- end -}}

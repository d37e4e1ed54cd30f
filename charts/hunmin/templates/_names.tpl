{{/* The one place where resources get their names and labels. */}}

{{- define "hunmin.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The name of a part of the release: (dict "root" $ "part" "gateway"). */}}
{{- define "hunmin.name" -}}
{{- printf "%s-%s" (include "hunmin.fullname" .root) .part -}}
{{- end -}}

{{- define "hunmin.labels" -}}
{{ include "hunmin.selector" . }}
app.kubernetes.io/part-of: hunmin
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* Of a part, and all that its pods have: a label of the chart's version would restart them with each one. */}}
{{- define "hunmin.selector" -}}
{{ include "hunmin.release" .root }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{/* What every pod of the release has, and no pod of another. */}}
{{- define "hunmin.release" -}}
app.kubernetes.io/name: hunmin
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "hunmin.metadata" -}}
name: {{ include "hunmin.name" . }}
namespace: {{ .namespace | default .root.Release.Namespace }}
labels:
  {{- include "hunmin.labels" . | nindent 2 }}
{{- end -}}

{{/* The Secret whose values the chart makes once; those of a bundled blob store are in one of their own. */}}
{{- define "hunmin.generatedSecret" -}}
{{- include "hunmin.name" (dict "root" . "part" "generated") -}}
{{- end -}}

{{- define "hunmin.url" -}}
{{- $service := index .root.Values.services .part -}}
{{- if $service.enabled -}}
http://{{ include "hunmin.name" . }}:{{ $service.port }}
{{- else -}}
{{- required (printf "services.%s is not enabled, and other services call it: enable it, or say where it is in services.%s.url." .part .part) $service.url -}}
{{- end -}}
{{- end -}}

{{/* The port of a URL: (dict "url" "https://host"). */}}
{{- define "hunmin.port" -}}
{{- $url := urlParse .url -}}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "80" "443" (eq $url.scheme "http")) -}}
{{- end -}}

{{/* The Secret and key of the database's URL, as a secretKeyRef: (dict "root" $ "key" "url"). */}}
{{- define "hunmin.databaseRef" -}}
{{- if .root.Values.dev.postgresql.enabled -}}
{name: {{ include "hunmin.generatedSecret" .root }}, key: database-url}
{{- else -}}
{name: {{ .root.Values.database.existingSecret }}, key: {{ .key }}}
{{- end -}}
{{- end -}}

{{- define "hunmin.blobsSecret" -}}
{{- if .Values.dev.s3.enabled -}}
{{- include "hunmin.name" (dict "root" . "part" "blobs") -}}
{{- else -}}
{{- .Values.blobs.existingSecret -}}
{{- end -}}
{{- end -}}

{{- define "hunmin.blobsEndpoint" -}}
{{- if .Values.dev.s3.enabled -}}
http://{{ include "hunmin.name" (dict "root" . "part" "s3") }}:8080
{{- else -}}
{{- .Values.blobs.endpoint -}}
{{- end -}}
{{- end -}}

{{- define "hunmin.kafkaServers" -}}
{{- if .Values.dev.kafka.enabled -}}
{{ include "hunmin.name" (dict "root" . "part" "kafka") }}:9092
{{- else -}}
{{- .Values.kafka.servers -}}
{{- end -}}
{{- end -}}

{{- define "hunmin.oidcIssuer" -}}
{{- if .Values.dev.keycloak.enabled -}}
{{ .Values.dev.keycloak.url }}/realms/hunmin
{{- else -}}
{{- .Values.oidc.issuer -}}
{{- end -}}
{{- end -}}

{{/* Where pods reach the realm. */}}
{{- define "hunmin.oidcInternal" -}}
{{- if .Values.dev.keycloak.enabled -}}
http://{{ include "hunmin.name" (dict "root" . "part" "keycloak") }}:8080/realms/hunmin
{{- else -}}
{{- .Values.oidc.discoveryUrl | trimSuffix "/.well-known/openid-configuration" | default .Values.oidc.issuer -}}
{{- end -}}
{{- end -}}

{{- define "hunmin.modelClaim" -}}
{{- if .Values.modelVolume.create -}}
{{- include "hunmin.name" (dict "root" . "part" "models") -}}
{{- else -}}
{{- .Values.modelVolume.existingClaim -}}
{{- end -}}
{{- end -}}

{{- define "hunmin.databaseKeys" -}}
{{- $keys := list -}}
{{- range .Values.services }}{{ if and .enabled .databaseKey }}{{ $keys = append $keys .databaseKey }}{{ end }}{{ end -}}
{{- uniq $keys | join ", " -}}
{{- end -}}

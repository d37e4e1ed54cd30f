{{/* What every pod and container has alike. */}}

{{/* (dict "root" $ "image" $service.image): a digest goes before a tag, and imageRegistry before every other registry. */}}
{{- define "hunmin.image" -}}
{{- $values := .root.Values -}}
{{- $name := printf "%s/%s" (coalesce $values.imageRegistry .image.registry $values.image.registry) .image.repository -}}
{{- if .image.digest -}}
{{ $name }}@{{ .image.digest }}
{{- else -}}
{{ $name }}:{{ coalesce .image.tag $values.image.tag .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* (dict "root" $ "user" 10001). */}}
{{- define "hunmin.podSecurity" -}}
enableServiceLinks: false   # a Service named hunmin-gateway would set HUNMIN_GATEWAY_PORT=tcp://…
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .user }}
  runAsGroup: {{ .user }}
  fsGroup: {{ .user }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "hunmin.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* A map of variables as a list: a text is a value, a map is where the value comes from. Being a map, it has no name twice. */}}
{{- define "hunmin.envList" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  {{- if kindIs "map" $value }}
  valueFrom: {{ toJson $value }}
  {{- else }}
  value: {{ $value | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* A setting as the text of a variable. JSON writes large numbers in full, where a template would write 1e+09. */}}
{{- define "hunmin.settingText" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end -}}

{{/*
What every process of a service's image is told, as a YAML map: (dict "root" $ "part" "gateway"). Migrations and the like need
no more, and a hook must not: it runs before the release's own Secret is there.
*/}}
{{- define "hunmin.baseEnv" -}}
{{- $root := .root -}}
{{- $service := index $root.Values.services .part -}}
{{- $env := dict "HOME" "/tmp" "HUNMIN_HOME" "/tmp/hunmin" "HUNMIN_LOG_FORMAT" "json" -}}
{{- range $service.needs }}
{{- $_ := set $env (printf "%sURL" (include "hunmin.prefix" .)) (include "hunmin.url" (dict "root" $root "part" .)) -}}
{{- end }}
{{- if $service.databaseKey }}
{{- $ref := include "hunmin.databaseRef" (dict "root" $root "key" $service.databaseKey) | fromYaml -}}
{{- $_ := set $env "HUNMIN_DATABASE_URL" (dict "secretKeyRef" $ref) -}}
{{- with include "hunmin.kafkaServers" $root }}{{ $_ := set $env "HUNMIN_KAFKA_SERVERS" . }}{{ end -}}
{{- $kafka := $root.Values.kafka -}}
{{- if and $kafka.servers $kafka.tls }}{{ $_ := set $env "HUNMIN_KAFKA_TLS" "true" }}{{ end -}}
{{- if and $kafka.servers $kafka.existingSecret }}
{{- $_ := set $env "HUNMIN_KAFKA_SASL_MECHANISM" $kafka.saslMechanism -}}
{{- range list "user" "password" }}
{{- $_ := set $env (printf "HUNMIN_KAFKA_%s" (upper .)) (dict "secretKeyRef" (dict "name" $kafka.existingSecret "key" .)) -}}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $value := $root.Values.settings }}
{{- $_ := set $env (printf "HUNMIN_%s" (upper $name)) (include "hunmin.settingText" $value) -}}
{{- end }}
{{- toYaml $env -}}
{{- end -}}

{{/* What a service's own process is told. */}}
{{- define "hunmin.env" -}}
{{- $values := .root.Values -}}
{{- $service := index $values.services .part -}}
{{- $prefix := include "hunmin.prefix" .part -}}
{{- $env := include "hunmin.baseEnv" . | fromYaml -}}
{{- $_ := set $env "HUNMIN_DRAIN_S" (toString $values.drain.seconds) -}}
{{- $_ := set $env (print $prefix "HOST") "0.0.0.0" -}}
{{- $_ := set $env (print $prefix "PORT") (toString $service.port) -}}
{{- if $service.usesBlobs }}
{{- $_ := set $env "HUNMIN_BLOBS_URL" $values.blobs.url -}}
{{- $env = merge $env (include "hunmin.blobsEnv" .root | fromYaml) -}}
{{- end }}
{{- if $service.usesModels }}
{{- $folders := dict -}}
{{- range $name, $_ := $values.models }}{{ $_ := set $folders $name (printf "/models/%s" $name) }}{{ end -}}
{{- $_ := set $env (print $prefix "MODELS") (toJson $folders) -}}
{{- end }}
{{- if eq .part "gateway" }}{{ $env = merge $env (include "hunmin.gatewayEnv" .root | fromYaml) }}{{ end -}}
{{- if eq .part "tuning" }}{{ $env = merge $env (include "hunmin.tuningEnv" .root | fromYaml) }}{{ end -}}
{{- range $name, $value := $service.settings }}
{{- $_ := set $env (print $prefix (upper $name)) (include "hunmin.settingText" $value) -}}
{{- end }}
{{- range $name, $ref := $service.secretSettings }}
{{- $_ := set $env (print $prefix (upper $name)) (dict "secretKeyRef" $ref) -}}
{{- end }}
{{- toYaml $env -}}
{{- end -}}

{{/* The prefix of a service's variables. */}}
{{- define "hunmin.prefix" -}}
HUNMIN_{{ upper . | replace "-" "_" }}_
{{- end -}}

{{/* How the blob store is reached, for services and for the pods of tuning jobs. */}}
{{- define "hunmin.blobsEnv" -}}
{{- $env := dict "AWS_DEFAULT_REGION" .Values.blobs.region -}}
{{- with include "hunmin.blobsEndpoint" . }}{{ $_ := set $env "AWS_ENDPOINT_URL" . }}{{ end -}}
{{- with include "hunmin.blobsSecret" . }}
{{- range list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
{{- $_ := set $env . (dict "secretKeyRef" (dict "name" (include "hunmin.blobsSecret" $) "key" .)) -}}
{{- end }}
{{- end }}
{{- toYaml $env -}}
{{- end -}}

{{- define "hunmin.gatewayEnv" -}}
{{- $secret := .Values.gateway.existingSecret | default (include "hunmin.generatedSecret" .) -}}
{{- $env := dict "HUNMIN_GATEWAY_KEY_PEPPER" (dict "secretKeyRef" (dict "name" $secret "key" "key-pepper")) -}}
{{- if .Values.gateway.existingSecret }}
{{- $_ := set $env "HUNMIN_GATEWAY_BOOTSTRAP_KEY" (dict "secretKeyRef" (dict "name" $secret "key" "bootstrap-key" "optional" true)) -}}
{{- end }}
{{- with .Values.publicUrl }}{{ $_ := set $env "HUNMIN_GATEWAY_PUBLIC_URL" . }}{{ end -}}
{{- $issuer := include "hunmin.oidcIssuer" . -}}
{{- if $issuer }}
{{- $client := .Values.oidc.existingSecret | default (include "hunmin.generatedSecret" .) -}}
{{- $_ := set $env "HUNMIN_GATEWAY_OIDC_ISSUER" $issuer -}}
{{- $_ := set $env "HUNMIN_GATEWAY_OIDC_CLIENT_ID" .Values.oidc.clientId -}}
{{- $_ := set $env "HUNMIN_GATEWAY_OIDC_CLIENT_SECRET" (dict "secretKeyRef" (dict "name" $client "key" "oidc-client-secret")) -}}
{{- $internal := include "hunmin.oidcInternal" . -}}
{{- if ne $internal $issuer }}
{{- $_ := set $env "HUNMIN_GATEWAY_OIDC_DISCOVERY_URL" (printf "%s/.well-known/openid-configuration" $internal) -}}
{{- end }}
{{- end }}
{{- toYaml $env -}}
{{- end -}}

{{/* Of a PyTorchJob the chart says what it knows itself: image, volume, blob store, labels. */}}
{{- define "hunmin.tuningEnv" -}}
{{- $env := dict "HUNMIN_TUNING_BACKEND" .Values.tuningJobs.backend -}}
{{- if eq .Values.tuningJobs.backend "pytorchjob" }}
{{- $plain := dict -}}
{{- range $name, $value := include "hunmin.blobsEnv" . | fromYaml }}{{ if kindIs "string" $value }}{{ $_ := set $plain $name $value }}{{ end }}{{ end -}}
{{- $own := dict
      "image" (include "hunmin.image" (dict "root" . "image" .Values.services.tuning.image))
      "image_pull_secrets" .Values.imagePullSecrets
      "namespace" (include "hunmin.jobsNamespace" .)
      "environment" $plain
      "secrets" (compact (list (include "hunmin.blobsSecret" .)))
      "mounts" (list (dict "claim" (include "hunmin.modelClaim" .) "path" "/models"))
      "labels" (include "hunmin.selector" (dict "root" . "part" "tuning-job") | fromYaml) -}}
{{- $_ := set $env "HUNMIN_TUNING_PYTORCHJOB" (toJson (merge (deepCopy .Values.tuningJobs.pytorchjob) $own)) -}}
{{- end }}
{{- toYaml $env -}}
{{- end -}}

{{- define "hunmin.jobsNamespace" -}}
{{- .Values.tuningJobs.namespace | default .Release.Namespace -}}
{{- end -}}

{{/* The models that have an address, as JSON; nothing if there is none. */}}
{{- define "hunmin.fetchedModels" -}}
{{- $fetched := dict -}}
{{- range $name, $model := .Values.models }}{{ if $model.url }}{{ $_ := set $fetched $name $model }}{{ end }}{{ end -}}
{{- if $fetched }}{{ toJson $fetched }}{{ end -}}
{{- end -}}

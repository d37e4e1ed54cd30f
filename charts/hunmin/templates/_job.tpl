{{/* The services that have a schema, as JSON, and the jobs that migrate it. */}}
{{- define "hunmin.withDatabase" -}}
{{- $found := list -}}
{{- range $part, $service := .Values.services }}{{ if and $service.enabled $service.databaseKey }}{{ $found = append $found $part }}{{ end }}{{ end -}}
{{- toJson $found -}}
{{- end -}}

{{- define "hunmin.migrations" -}}
{{- $jobs := list -}}
{{- range include "hunmin.withDatabase" . | fromJsonArray }}{{ $jobs = append $jobs (print "migrate-" .) }}{{ end -}}
{{- toJson $jobs -}}
{{- end -}}

{{/*
A command that may be run any number of times, in the image of a service and with its settings:
(dict "root" $ "part" "gateway" "job" "topics" "command" (list …) "env" (dict …) "hook" true).
A hook runs before the release's own objects are there, so it uses none of them: the account is the namespace's own.
*/}}
{{- define "hunmin.job" -}}
{{- $root := .root -}}
{{- $service := index $root.Values.services .part -}}
{{- $named := dict "root" $root "part" .job -}}
{{- $env := .env | default (include "hunmin.baseEnv" . | fromYaml) }}
---
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ include "hunmin.name" $named }}{{ if not .hook }}-r{{ $root.Release.Revision }}{{ end }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "hunmin.labels" $named | nindent 4 }}
  {{- if .hook }}
  annotations:
    helm.sh/hook: pre-install,pre-upgrade
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
  {{- end }}
spec:
  backoffLimit: 20
  activeDeadlineSeconds: 1800
  template:
    metadata:
      labels:
        {{- include "hunmin.selector" $named | nindent 8 }}
    spec:
      restartPolicy: OnFailure
      automountServiceAccountToken: false
      {{- include "hunmin.podSecurity" (dict "root" $root "user" 10001) | nindent 6 }}
      {{- with $service.nodeSelector }}
      nodeSelector: {{ toJson . }}
      {{- end }}
      {{- with $service.tolerations }}
      tolerations: {{ toJson . }}
      {{- end }}
      containers:
        - name: {{ .job }}
          image: {{ include "hunmin.image" (dict "root" $root "image" $service.image) }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          command: {{ toJson .command }}
          env:
            {{- include "hunmin.envList" $env | nindent 12 }}
          {{- include "hunmin.containerSecurity" . | nindent 10 }}
          resources: {{ toJson $root.Values.jobs.resources }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
      volumes:
        - name: tmp
          emptyDir: {sizeLimit: 1Gi}
{{- end -}}

{{/*
A server of one pod with a volume, for development. Its container (command, variables, probes) is the template hunmin.PART:
(dict "root" $ "part" "kafka" "user" 1000 "port" 9092 "mountPath" "/data" "callers" (list …)), and, where need be, "scratch", a
map of paths to the sizes of empty folders; "init", a command that runs first; "egress", whom it calls. No callers: everybody.
*/}}
{{- define "hunmin.devServer" -}}
{{- $named := dict "root" .root "part" .part -}}
{{- $values := index .root.Values.dev .part -}}
{{- $container := include (print "hunmin." .part) .root -}}
{{- $scratch := merge (dict "/tmp" "256Mi") (.scratch | default dict) -}}
{{- $image := include "hunmin.image" (dict "root" .root "image" $values.image) -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  {{- include "hunmin.metadata" $named | nindent 2 }}
spec:
  replicas: 1
  serviceName: {{ include "hunmin.name" $named }}
  selector:
    matchLabels:
      {{- include "hunmin.selector" $named | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "hunmin.selector" $named | nindent 8 }}
    spec:
      automountServiceAccountToken: false
      {{- include "hunmin.podSecurity" (dict "root" .root "user" .user) | nindent 6 }}
      {{- with .init }}
      initContainers:
        - name: prepare
          image: {{ $image }}
          imagePullPolicy: {{ $.root.Values.image.pullPolicy }}
          command: {{ toJson . }}
          {{- include "hunmin.containerSecurity" . | nindent 10 }}
          resources: {{ toJson $values.resources }}
          volumeMounts:
            - {name: data, mountPath: {{ $.mountPath }}}
            {{- range $path, $_ := $scratch }}
            - {name: scratch{{ $path | replace "/" "-" }}, mountPath: {{ $path }}}
            {{- end }}
      {{- end }}
      containers:
        - name: {{ .part }}
          image: {{ $image }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          {{- $container | nindent 10 }}
          ports:
            - {name: server, containerPort: {{ .port }}}
          {{- include "hunmin.containerSecurity" . | nindent 10 }}
          resources: {{ toJson $values.resources }}
          volumeMounts:
            - {name: data, mountPath: {{ .mountPath }}}
            {{- range $path, $_ := $scratch }}
            - {name: scratch{{ $path | replace "/" "-" }}, mountPath: {{ $path }}}
            {{- end }}
      volumes:
        {{- range $path, $size := $scratch }}
        - name: scratch{{ $path | replace "/" "-" }}
          emptyDir: {sizeLimit: {{ $size }}}
        {{- end }}
  volumeClaimTemplates:
    - metadata: {name: data}
      spec:
        accessModes: [ReadWriteOnce]
        resources: {requests: {storage: {{ $values.storage }}}}
---
apiVersion: v1
kind: Service
metadata:
  {{- include "hunmin.metadata" $named | nindent 2 }}
spec:
  type: {{ $values.serviceType | default "ClusterIP" }}
  selector:
    {{- include "hunmin.selector" $named | nindent 4 }}
  ports:
    - name: server
      port: {{ .port }}
      targetPort: server
      {{- with $values.nodePort }}
      nodePort: {{ . }}
      {{- end }}
{{- if .root.Values.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "hunmin.metadata" $named | nindent 2 }}
spec:
  podSelector: {{ include "hunmin.pods" (dict "root" .root "parts" (list .part)) }}
  policyTypes: [Ingress, Egress]
  ingress:
    - ports: [{port: {{ .port }}}]
      {{- with .callers }}
      from: [{podSelector: {{ include "hunmin.pods" (dict "root" $.root "parts" .) }}}]
      {{- end }}
  {{- with .egress }}
  egress:
    {{- . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Who calls the blob store, as JSON. */}}
{{- define "hunmin.blobsCallers" -}}
{{- $callers := list "tuning-job" -}}
{{- range $part, $service := .Values.services }}{{ if and $service.enabled (or $service.usesBlobs $service.usesModels) }}{{ $callers = append $callers $part }}{{ end }}{{ end -}}
{{- toJson $callers -}}
{{- end -}}

{{/* A name of at most 63 characters. A digest replaces the part that is cut off, so that names stay different. */}}
{{- define "floe-dagster.short" -}}
{{- if le (len .) 63 -}}{{ . }}{{- else -}}{{ printf "%s-%s" (trunc 54 . | trimSuffix "-") (sha256sum . | trunc 8) }}{{- end -}}
{{- end -}}

{{- define "floe-dagster.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "floe-dagster.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- include "floe-dagster.short" .Values.fullnameOverride -}}
{{- else if contains (include "floe-dagster.name" .) .Release.Name -}}
{{- include "floe-dagster.short" .Release.Name -}}
{{- else -}}
{{- include "floe-dagster.short" (printf "%s-%s" .Release.Name (include "floe-dagster.name" .)) -}}
{{- end -}}
{{- end -}}

{{/* Call with (list $ "suffix"). */}}
{{- define "floe-dagster.of" -}}
{{- include "floe-dagster.short" (printf "%s-%s" (include "floe-dagster.fullname" (index . 0)) (index . 1)) -}}
{{- end -}}

{{/* Labels that never change in a release; call with (list $ "component"). */}}
{{- define "floe-dagster.selector" -}}
app.kubernetes.io/name: {{ include "floe-dagster.name" (index . 0) }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "floe-dagster.labels" -}}
{{ include "floe-dagster.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Labels that network policies select by; run pods have these two labels too. */}}
{{- define "floe-dagster.role" -}}
floe-dagster/release: {{ (index . 0).Release.Name }}
floe-dagster/role: {{ index . 1 }}
{{- end -}}

{{- define "floe-dagster.image" -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end -}}

{{- define "floe-dagster.ownImage" -}}
{{- include "floe-dagster.image" (dict "repository" .Values.image.repository "tag" (default .Chart.AppVersion .Values.image.tag) "digest" .Values.image.digest) -}}
{{- end -}}

{{/* The bytes or cores of a quantity as a number, to compare a request with its limit. */}}
{{- define "floe-dagster.number" -}}
{{- $factors := dict "" 1.0 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- $text := toString . -}}
{{- $unit := regexFind "[a-zA-Z]*$" $text -}}
{{- mulf (trimSuffix $unit $text | float64) (get $factors $unit) -}}
{{- end -}}

{{/* Resources; fails if a request is more than its limit. Call with (list resources "path.of.value"). */}}
{{- define "floe-dagster.resources" -}}
{{- $path := index . 1 -}}
{{- with index . 0 -}}
{{- $limits := .limits | default dict -}}
{{- range $name, $request := .requests | default dict -}}
{{- $limit := get $limits $name -}}
{{- if $limit -}}
{{- if gt (include "floe-dagster.number" $request | float64) (include "floe-dagster.number" $limit | float64) -}}
{{- fail (printf "%s: the %s request %v is more than the limit %v. Lower requests.%s or raise limits.%s." $path $name $request $limit $name $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{/* Restricted Pod Security Standard, for a pod and for each of its containers. */}}
{{- define "floe-dagster.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.podSecurity.runAsUser }}
runAsGroup: {{ .Values.podSecurity.runAsGroup }}
fsGroup: {{ .Values.podSecurity.fsGroup }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "floe-dagster.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* The database: host, port and the Secret with its password in key `postgresql-password`. */}}
{{- define "floe-dagster.databaseHost" -}}
{{- if .Values.postgresql.enabled -}}{{ include "floe-dagster.of" (list . "postgresql") }}{{- else -}}{{ .Values.postgresql.external.host }}{{- end -}}
{{- end -}}

{{- define "floe-dagster.databasePort" -}}
{{- if .Values.postgresql.enabled -}}5432{{- else -}}{{ .Values.postgresql.external.port }}{{- end -}}
{{- end -}}

{{- define "floe-dagster.databaseSecret" -}}
{{- if .Values.postgresql.enabled -}}
{{- default (include "floe-dagster.of" (list . "postgresql")) .Values.postgresql.existingSecret -}}
{{- else -}}
{{- .Values.postgresql.external.existingSecret -}}
{{- end -}}
{{- end -}}

{{- define "floe-dagster.spoolClaim" -}}
{{- default (include "floe-dagster.of" (list . "lineage-spool")) .Values.lineageSpool.existingClaim -}}
{{- end -}}

{{/* Environment of every Dagster process, as a map. Call with (list $ env env ...); later maps
     win. */}}
{{- define "floe-dagster.envMap" -}}
{{- $root := index . 0 -}}
{{- $env := dict "HOME" "/tmp" "PYTHONUNBUFFERED" "1" "DAGSTER_DISABLE_TELEMETRY" "1" "DO_NOT_TRACK" "1" "DBT_SEND_ANONYMOUS_USAGE_STATS" "false" -}}
{{- with $root.Values.openlineage -}}
{{- if .url }}{{ $_ := set $env "OPENLINEAGE_URL" .url }}{{ end -}}
{{- if .endpoint }}{{ $_ := set $env "OPENLINEAGE_ENDPOINT" .endpoint }}{{ end -}}
{{- if .namespace }}{{ $_ := set $env "OPENLINEAGE_NAMESPACE" .namespace }}{{ end -}}
{{- end -}}
{{- with $root.Values.opentelemetry -}}
{{- if .endpoint -}}
{{- $_ := set $env "OTEL_EXPORTER_OTLP_ENDPOINT" .endpoint -}}
{{- $_ := set $env "OTEL_EXPORTER_OTLP_PROTOCOL" .protocol -}}
{{- $_ := set $env "OTEL_SERVICE_NAME" (default (include "floe-dagster.fullname" $root) .serviceName) -}}
{{- $attributes := list -}}
{{- range $key, $value := .resourceAttributes }}{{ $attributes = append $attributes (printf "%s=%s" $key $value) }}{{ end -}}
{{- if $attributes }}{{ $_ := set $env "OTEL_RESOURCE_ATTRIBUTES" (join "," $attributes) }}{{ end -}}
{{- else -}}
{{- $_ := set $env "OTEL_SDK_DISABLED" "true" -}}
{{- end -}}
{{- end -}}
{{- if $root.Values.lineageSpool.enabled }}{{ $_ := set $env "FLOE_LINEAGE_SPOOL" $root.Values.lineageSpool.mountPath }}{{ end -}}
{{- range prepend (rest .) $root.Values.env }}{{ $env = merge (deepCopy (. | default dict)) $env }}{{ end -}}
{{- toYaml $env -}}
{{- end -}}

{{/* The same environment, as a list of container environment variables. */}}
{{- define "floe-dagster.env" -}}
{{- $root := index . 0 -}}
- name: DAGSTER_HOME
  value: {{ $root.Values.dagsterHome | quote }}
- name: DAGSTER_PG_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "floe-dagster.databaseSecret" $root }}
      key: postgresql-password
{{- range $name, $value := include "floe-dagster.envMap" . | fromYaml }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* Names of Secrets whose keys become environment variables, as a list; (list $ names). */}}
{{- define "floe-dagster.secretNames" -}}
{{- $root := index . 0 -}}
{{- $names := concat $root.Values.envSecrets (index . 1 | default list) -}}
{{- with $root.Values.openlineage.existingSecret }}{{ $names = append $names . }}{{ end -}}
{{- with $root.Values.opentelemetry.existingSecret }}{{ $names = append $names . }}{{ end -}}
{{- toYaml (uniq $names) -}}
{{- end -}}

{{- define "floe-dagster.envFrom" -}}
{{- $root := index . 0 -}}
{{- $secrets := include "floe-dagster.secretNames" . | fromYamlArray -}}
{{- if or $secrets $root.Values.envConfigMaps }}
envFrom:
  {{- range $root.Values.envConfigMaps }}
  - configMapRef:
      name: {{ . }}
  {{- end }}
  {{- range $secrets }}
  - secretRef:
      name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Directories that a Dagster process may write to: its home and /tmp. Both are deleted with the pod. */}}
{{- define "floe-dagster.volumeMounts" -}}
- name: home
  mountPath: {{ .Values.dagsterHome }}
- name: instance
  mountPath: {{ .Values.dagsterHome }}/dagster.yaml
  subPath: dagster.yaml
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- end -}}

{{- define "floe-dagster.volumes" -}}
- name: home
  emptyDir:
    sizeLimit: {{ .Values.podSecurity.tmpSizeLimit }}
- name: instance
  configMap:
    name: {{ include "floe-dagster.of" (list . "instance") }}
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.podSecurity.tmpSizeLimit }}
{{- end -}}

{{/* Settings that decide on which nodes pods run; call with (list $ "component" block). */}}
{{- define "floe-dagster.scheduling" -}}
{{- $block := index . 2 -}}
{{- with (index . 0).Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $block.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $block.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $block.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Init container that waits until each place (host:port) accepts connections; seconds 0: without limit.
     Call with (list $ name seconds places). */}}
{{- define "floe-dagster.wait" -}}
{{- $root := index . 0 -}}
- name: {{ index . 1 }}
  image: {{ include "floe-dagster.ownImage" $root }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  command:
    - python
    - -c
    - |
      import socket, sys, time
      seconds = int(sys.argv[1])
      end = time.monotonic() + seconds if seconds else float("inf")
      for place in sys.argv[2:]:
          host, _, port = place.rpartition(":")
          while time.monotonic() < end:
              try:
                  socket.create_connection((host, int(port)), 5).close()
                  break
              except OSError as error:
                  print(f"waiting for {place}: {error}", flush=True)
                  time.sleep(2)
    - {{ index . 2 | quote }}
    {{- range index . 3 }}
    - {{ . | quote }}
    {{- end }}
  securityContext:
    {{- include "floe-dagster.containerSecurity" $root | nindent 4 }}
  resources:
    requests: {cpu: 10m, memory: 32Mi}
    limits: {cpu: 200m, memory: 64Mi}
{{- end -}}

{{- define "floe-dagster.waitForDatabase" -}}
{{- $place := printf "%s:%s" (include "floe-dagster.databaseHost" .) (include "floe-dagster.databasePort" .) -}}
{{- include "floe-dagster.wait" (list . "wait-for-database" "0" (list $place)) -}}
{{- end -}}

{{/* Name of a product's code server; call with (list $ name). */}}
{{- define "floe-dagster.codeServer" -}}
{{- include "floe-dagster.of" (list (index . 0) (printf "code-%s" (index . 1))) -}}
{{- end -}}

{{/* Rules that a JSON schema cannot express. */}}
{{- define "floe-dagster.checked" -}}
{{- $names := list -}}
{{- range (index .Values "dagster-user-code").deployments -}}
{{- if has .name $names -}}
{{- fail (printf "dagster-user-code.deployments: two products are named %q. Give each product a different name." .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- $_ := include "floe-dagster.resources" (list .Values.runs.resources "runs.resources") -}}
{{- with index .Values "dagster-webserver" -}}
{{- if and .autoscaling.enabled (gt (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas)) -}}
{{- fail "dagster-webserver.autoscaling: minReplicas is more than maxReplicas. Lower minReplicas or raise maxReplicas." -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Settings of a product's run pods in addition to the settings of the launcher, as JSON.
     Call with (list $ deployment env "path.of.value"). */}}
{{- define "floe-dagster.containerContext" -}}
{{- $root := index . 0 -}}
{{- $item := index . 1 -}}
{{- $variables := list -}}
{{- range $name, $value := index . 2 -}}
{{- $variables = append $variables (printf "%s=%v" $name $value) -}}
{{- end -}}
{{- $k8s := dict "namespace" $root.Release.Namespace "image_pull_policy" ($item.image.pullPolicy | default $root.Values.image.pullPolicy) "env_vars" $variables -}}
{{- with $item.envSecrets }}{{ $_ := set $k8s "env_secrets" . }}{{ end -}}
{{- /* Set here and not in the launcher: Dagster would combine the launcher's limits with a product's requests. */ -}}
{{- $resources := list (index $root.Values "dagster-user-code").resources "dagster-user-code.resources" -}}
{{- with $root.Values.runs.resources }}{{ $resources = list . "runs.resources" }}{{ end -}}
{{- with $item.runResources }}{{ $resources = list . (printf "%s.runResources" (index $ 3)) }}{{ end -}}
{{- $_ := set $k8s "resources" (include "floe-dagster.resources" $resources | fromYaml) -}}
{{- $directory := $item.workingDirectory | default (index $root.Values "dagster-user-code").workingDirectory -}}
{{- $_ := set $k8s "run_k8s_config" (dict "container_config" (dict "workingDir" $directory)) -}}
{{- dict "k8s" $k8s | toJson -}}
{{- end -}}

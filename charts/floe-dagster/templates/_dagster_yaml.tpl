{{/* dagster.yaml: the settings of the Dagster instance. */}}
{{- define "floe-dagster.dagsterYaml" -}}
telemetry:
  enabled: false
storage:
  postgres:
    postgres_db:
      # The driver that dagster-postgres installs. Without a name, SQLAlchemy 2.1 uses a different one.
      scheme: postgresql+psycopg2
      hostname: {{ include "floe-dagster.databaseHost" . | quote }}
      port: {{ include "floe-dagster.databasePort" . }}
      username: {{ .Values.postgresql.username | quote }}
      password:
        env: DAGSTER_PG_PASSWORD
      db_name: {{ .Values.postgresql.database | quote }}
      params:
        application_name: dagster
        {{- if not .Values.postgresql.enabled }}
        sslmode: {{ .Values.postgresql.external.sslMode }}
        {{- end }}
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config:
    dequeue_use_threads: true
    dequeue_num_workers: 4
run_launcher:
  module: dagster_k8s
  class: K8sRunLauncher
  config:
    load_incluster_config: true
    job_namespace: {{ .Release.Namespace }}
    service_account_name: {{ include "floe-dagster.of" (list . "run") }}
    dagster_home: {{ .Values.dagsterHome | quote }}
    instance_config_map: {{ include "floe-dagster.of" (list . "instance") }}
    postgres_password_secret: {{ include "floe-dagster.databaseSecret" . }}
    job_image: {{ include "floe-dagster.ownImage" . | quote }}
    image_pull_policy: {{ .Values.image.pullPolicy }}
    {{- with .Values.imagePullSecrets }}
    image_pull_secrets:
      {{- range . }}
      - name: {{ . }}
      {{- end }}
    {{- end }}
    fail_pod_on_run_failure: {{ .Values.runs.failPodOnRunFailure }}
    {{- with include "floe-dagster.secretNames" (list . list) | fromYamlArray }}
    env_secrets:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .Values.envConfigMaps }}
    env_config_maps:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    env_vars:
      {{- range $name, $value := include "floe-dagster.envMap" (list . .Values.runs.env) | fromYaml }}
      - {{ printf "%s=%v" $name $value | quote }}
      {{- end }}
    labels:
      {{- include "floe-dagster.role" (list . "run") | nindent 6 }}
    volumes:
      - name: home
        emptyDir:
          sizeLimit: {{ .Values.podSecurity.tmpSizeLimit }}
      - name: tmp
        emptyDir:
          sizeLimit: {{ .Values.podSecurity.tmpSizeLimit }}
      {{- if .Values.lineageSpool.enabled }}
      - name: lineage-spool
        persistentVolumeClaim:
          claimName: {{ include "floe-dagster.spoolClaim" . }}
      {{- end }}
    volume_mounts:
      - name: home
        mountPath: {{ .Values.dagsterHome }}
      - name: tmp
        mountPath: /tmp
      {{- if .Values.lineageSpool.enabled }}
      - name: lineage-spool
        mountPath: {{ .Values.lineageSpool.mountPath }}
      {{- end }}
    run_k8s_config:
      container_config:
        securityContext:
          {{- include "floe-dagster.containerSecurity" . | nindent 10 }}
      pod_spec_config:
        automountServiceAccountToken: {{ .Values.runs.stepPods }}
        enableServiceLinks: false
        terminationGracePeriodSeconds: {{ .Values.runs.terminationGracePeriodSeconds }}
        securityContext:
          {{- include "floe-dagster.podSecurity" . | nindent 10 }}
        {{- with .Values.runs.priorityClassName }}
        priorityClassName: {{ . }}
        {{- end }}
        {{- with .Values.runs.nodeSelector }}
        nodeSelector:
          {{- toYaml . | nindent 10 }}
        {{- end }}
        {{- with .Values.runs.tolerations }}
        tolerations:
          {{- toYaml . | nindent 10 }}
        {{- end }}
      job_spec_config:
        ttlSecondsAfterFinished: {{ .Values.runs.ttlSecondsAfterFinished }}
run_monitoring:
  enabled: {{ .Values.runMonitoring.enabled }}
  start_timeout_seconds: {{ .Values.runMonitoring.startTimeoutSeconds }}
  cancel_timeout_seconds: {{ .Values.runMonitoring.cancelTimeoutSeconds }}
  {{- with .Values.runMonitoring.maxRuntimeSeconds }}
  max_runtime_seconds: {{ . }}
  {{- end }}
  max_resume_run_attempts: {{ .Values.runMonitoring.maxResumeRunAttempts }}
  poll_interval_seconds: {{ .Values.runMonitoring.pollIntervalSeconds }}
  free_slots_after_run_end_seconds: {{ .Values.runMonitoring.freeSlotsAfterRunEndSeconds }}
run_retries:
  enabled: {{ .Values.runRetries.enabled }}
  max_retries: {{ .Values.runRetries.maxRetries }}
  retry_on_asset_or_op_failure: {{ .Values.runRetries.retryOnAssetOrOpFailure }}
concurrency:
  pools:
    granularity: {{ .Values.concurrency.poolGranularity }}
    {{- with .Values.concurrency.defaultPoolLimit }}
    default_limit: {{ . }}
    {{- end }}
  runs:
    max_concurrent_runs: {{ .Values.concurrency.maxConcurrentRuns }}
    {{- with .Values.concurrency.tagConcurrencyLimits }}
    tag_concurrency_limits:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- with .Values.retention }}
{{- if .enabled }}
retention:
  schedule:
    purge_after_days: {{ .scheduleDays }}
  sensor:
    purge_after_days:
      skipped: {{ .sensorSkippedDays }}
      failure: {{ .sensorDays }}
      success: {{ .sensorDays }}
{{- end }}
{{- end }}
schedules:
  use_threads: true
  num_workers: {{ (index .Values "dagster-daemon").scheduleWorkers }}
sensors:
  use_threads: true
  num_workers: {{ (index .Values "dagster-daemon").sensorWorkers }}
python_logs:
  python_log_level: {{ upper .Values.logLevel }}
compute_logs:
  module: {{ .Values.computeLogs.module }}
  class: {{ index .Values.computeLogs "class" }}
  {{- with .Values.computeLogs.config }}
  config:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* workspace.yaml: the code servers that the webserver and the daemon connect to. */}}
{{- define "floe-dagster.workspaceYaml" -}}
{{- $code := index .Values "dagster-user-code" -}}
{{- if and $code.enabled $code.deployments -}}
load_from:
{{- range $code.deployments }}
  - grpc_server:
      host: {{ include "floe-dagster.codeServer" (list $ .name) }}
      port: {{ .port | default $code.port }}
      location_name: {{ .name }}
{{- end }}
{{- else -}}
load_from: []
{{- end -}}
{{- end -}}

{{/* host:port of every code server, as a list. */}}
{{- define "floe-dagster.codePlaces" -}}
{{- $code := index .Values "dagster-user-code" -}}
{{- $places := list -}}
{{- if $code.enabled -}}
{{- range $code.deployments -}}
{{- $places = append $places (printf "%s:%v" (include "floe-dagster.codeServer" (list $ .name)) (.port | default $code.port)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $places -}}
{{- end -}}

{{/* At most 36 letters, so that Kubernetes' own additions to names of StatefulSets fit into its 63. */}}
{{- define "dashtam.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 36 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 36 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* Of one component: (list $ "worker-sync") */}}
{{- define "dashtam.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "dashtam.labels" -}}
{{- $root := index . 0 -}}
{{ include "dashtam.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
{{- end }}

{{- define "dashtam.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* What must be true of the values as a whole. */}}
{{- define "dashtam.check" -}}
{{- $known := list -}}
{{- range $path, $_ := .Files.Glob "settings/*.env" -}}
{{- range $.Files.Lines $path }}{{ $known = append $known (trim .) }}{{ end -}}
{{- end -}}
{{- range $name, $_ := merge (dict) .Values.settings .Values.pluginSettings -}}
{{- if regexMatch "^(REDIS|BROKER|(READONLY_|MIGRATE_)?DATABASE)_URL$|^ENCRYPTION_KEYS$|_(PASSWORD|SECRET|TOKEN|APP_KEY|PRIVATE_KEY|CONSUMER_KEYS|CLIENT_ID)$" $name -}}
{{- fail (printf "%s is a secret: put it into the Secret %s, or into %s with its name in lower case" $name $.Values.secrets.name $.Values.secrets.credentials) -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := .Values.settings -}}
{{- if or (not (has $name $known)) (eq $name "EXPORTER_GAUGES") -}}
{{- fail (printf "settings.%s: no program reads it, or the chart sets it; .env.example lists what there is. Variables of a plug-in belong into pluginSettings" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := .Values.pluginSettings -}}
{{- if or (has $name $known) (has $name (list "DASHTAM_ENV" "DASHTAM_HOME" "LOG_FORMAT" "ALIVE_FILE" "CREDENTIALS_DIR")) -}}
{{- fail (printf "pluginSettings.%s is no variable of a plug-in: write it as settings.%s, if .env.example lists it" $name $name) -}}
{{- end -}}
{{- end -}}
{{- $soft := .Values.settings.SOFT_SHUTDOWN_SECONDS | default 30 | float64 -}}
{{- if lt (float64 .Values.terminationGracePeriodSeconds) (addf $soft 10) -}}
{{- fail (printf "terminationGracePeriodSeconds is %v; it must be at least %v, ten more than SOFT_SHUTDOWN_SECONDS, or work is cut off in the middle" .Values.terminationGracePeriodSeconds (addf $soft 10)) -}}
{{- end -}}
{{- end }}

{{/* Variables of a program: (list $ "worker.env" "web.env"); those of .Values.settings that these files name. */}}
{{- define "dashtam.env" -}}
{{- $root := index . 0 -}}
- {name: DASHTAM_ENV, value: {{ $root.Values.environment | quote }}}
- {name: LOG_FORMAT, value: {{ $root.Values.logFormat | quote }}}
- {name: DASHTAM_HOME, value: /var/lib/dashtam}
- {name: CREDENTIALS_DIR, value: /run/credentials}
{{- $names := list }}
{{- range rest . }}
{{- range $root.Files.Lines (printf "settings/%s" .) }}{{ $names = append $names (trim .) }}{{ end }}
{{- end }}
{{- range $names | uniq | sortAlpha }}
{{- if hasKey $root.Values.settings . }}
- {name: {{ . }}, value: {{ include "dashtam.text" (index $root.Values.settings .) | quote }}}
{{- end }}
{{- end }}
{{- if has "worker.env" . }}
{{- range $name, $value := $root.Values.pluginSettings }}
- {name: {{ $name }}, value: {{ include "dashtam.text" $value | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{/* A number of YAML as people write it: 1000000, not 1e+06. */}}
{{- define "dashtam.text" -}}
{{- if and (kindIs "float64" .) (eq (float64 (int64 .)) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* A volume of secrets: (dict "root" $ "keys" (list …) "credentials" true "name" …); what may be missing is optional. */}}
{{- define "dashtam.credentials" -}}
- name: {{ .name | default "credentials" }}
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ .root.Values.secrets.name }}
          items:
            {{- range .keys }}
            - {key: {{ . }}, path: {{ . }}}
            {{- end }}
            {{- with .owner }}
            - {key: {{ . }}, path: database_url}
            {{- end }}
      - secret:
          name: {{ .root.Values.secrets.name }}
          optional: true
          items: [{key: tls_ca, path: tls_ca}]
      {{- if not .owner }}
      - secret:
          name: {{ .root.Values.secrets.name }}
          optional: true
          items: [{key: broker_url, path: broker_url}]
      {{- end }}
      {{- if .credentials }}
      - secret: {name: {{ .root.Values.secrets.credentials }}, optional: true}
      {{- end }}
{{- end }}

{{- define "dashtam.container-security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What all pods have in common: (list $ component) */}}
{{- define "dashtam.pod" -}}
{{- $root := index . 0 -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ int64 $root.Values.user }}
  runAsGroup: {{ int64 $root.Values.group }}
  fsGroup: {{ int64 $root.Values.group }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "dashtam.selector" . | nindent 8 }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Image and rights, which all containers have in common. */}}
{{- define "dashtam.container" -}}
image: {{ include "dashtam.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- include "dashtam.container-security" . | nindent 2 }}
{{- end }}

{{/* Probes of a program whose loop touches /tmp/alive. They cost no more than a look at two files. */}}
{{- define "dashtam.loop-probes" -}}
startupProbe:
  exec: {command: [sh, -c, "find /tmp/alive -mmin -3 | grep -q ."]}
  periodSeconds: 5
  failureThreshold: 36
livenessProbe:
  exec: {command: [sh, -c, "find /tmp/alive -mmin -3 | grep -q ."]}
  periodSeconds: 30
  timeoutSeconds: 5
  failureThreshold: 2
readinessProbe:
  exec: {command: [sh, -c, "find /tmp/alive.connected -mmin -2 | grep -q ."]}
  periodSeconds: 15
  timeoutSeconds: 5
{{- end }}

{{- define "dashtam.annotations" -}}
{{- if and .Values.exporter.enabled .Values.exporter.scrapeAnnotations }}
prometheus.io/scrape: "true"
prometheus.io/port: "9540"
prometheus.io/path: /metrics
{{- end }}
{{- with .Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The container that serves the counts of this pod's home, with secrets of its own: (list $ component). That of upkeep
alone asks Postgres and the broker, too. */}}
{{- define "dashtam.exporter" -}}
{{- $component := index . 1 -}}
{{- with index . 0 -}}
- name: exporter
  {{- include "dashtam.container" . | nindent 2 }}
  command: [python, -m, worker.telemetry.exporter]
  env:
    {{- include "dashtam.env" (list . "exporter.env") | nindent 4 }}
    - {name: EXPORTER_ADDRESS, value: 0.0.0.0}
    - {name: EXPORTER_PORT, value: "9540"}
    - {name: EXPORTER_GAUGES, value: {{ eq $component "worker-upkeep" | quote }}}
  ports: [{name: metrics, containerPort: 9540}]
  livenessProbe:
    httpGet: {path: /healthz, port: metrics}
    periodSeconds: 30
    timeoutSeconds: 5
  resources: {{- toYaml .Values.exporter.resources | nindent 4 }}
  volumeMounts:
    - {name: home, mountPath: /var/lib/dashtam}
    - {name: exporter-tmp, mountPath: /tmp}
    - {name: exporter-credentials, mountPath: /run/credentials, readOnly: true}
{{- end }}
{{- end }}

{{- define "dashtam.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
{{- end }}

{{- define "dashtam.exporter-volumes" -}}
- name: exporter-tmp
  emptyDir: {sizeLimit: 64Mi}
{{ include "dashtam.credentials" (dict "root" . "name" "exporter-credentials" "keys" (list "redis_url" "readonly_database_url")) }}
{{- end }}

{{- define "dashtam.mounts" -}}
- {name: home, mountPath: /var/lib/dashtam}
- {name: tmp, mountPath: /tmp}
- {name: credentials, mountPath: /run/credentials, readOnly: true}
{{- end }}

{{/* The volume of a pod's home, which outlives the pod. */}}
{{- define "dashtam.home" -}}
persistentVolumeClaimRetentionPolicy: {whenScaled: Retain, whenDeleted: Retain}
volumeClaimTemplates:
  - apiVersion: v1
    kind: PersistentVolumeClaim
    metadata: {name: home}
    spec:
      accessModes: [ReadWriteOnce]
      {{- with .Values.home.storageClass }}
      storageClassName: {{ . }}
      {{- end }}
      resources: {requests: {storage: {{ .Values.home.size }}}}
{{- end }}

{{- define "dashtam.budget" -}}
{{- $root := index . 0 }}
{{- $component := index . 1 }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "dashtam.fullname" $root }}-{{ $component }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "dashtam.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "dashtam.selector" . | nindent 6 }}
{{- end }}

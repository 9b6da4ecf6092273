{{- define "hhh.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "hhh.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "hhh.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "hhh.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "hhh.selector" -}}
app.kubernetes.io/name: {{ include "hhh.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "hhh.labels" -}}
{{ include "hhh.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "hhh.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "hhh.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- /* What would fail later, or fail silently, is refused at once. */ -}}
{{- define "hhh.validate" -}}
{{- if not .Values.clientKeys.existingSecret -}}
{{- fail "clientKeys.existingSecret: name a Secret with your clients' keys; without keys the gateway listens on loopback only" -}}
{{- end -}}
{{- if and .Values.persistence.enabled (or .Values.autoscaling.enabled (gt (int .Values.replicaCount) 1)) -}}
{{- fail "persistence.enabled: one SQLite file serves one pod; set replicaCount to 1 and autoscaling off, or audit to PostgreSQL" -}}
{{- end -}}
{{- end }}

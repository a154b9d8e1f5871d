{{/* Names begin with the release's; one release is usually called as the chart. */}}
{{- define "lictor.name" -}}
{{- if eq .Release.Name .Chart.Name }}{{ .Chart.Name }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* Cluster-scoped names also carry the namespace, so that two releases of one name do not meet. */}}
{{- define "lictor.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "lictor.name" .) }}
{{- end }}

{{- define "lictor.selector" -}}
app.kubernetes.io/name: lictor-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "lictor.labels" -}}
{{ include "lictor.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "lictor.image" -}}
{{- if .Values.image.digest }}{{ printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}{{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}{{ end }}
{{- end }}

# Serves the model repository.
ARG RELEASE
ARG BASE=nvcr.io/nvidia/tritonserver:${RELEASE}-py3
FROM ${BASE}
ENTRYPOINT ["bash", "-c", "exec \"$0\" \"$@\""]
COPY check_image.py /opt/verdict/
RUN python3 /opt/verdict/check_image.py tritonserver

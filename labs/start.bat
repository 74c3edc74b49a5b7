@echo off
rem Opens the lab in JupyterLab; the first time, installs it into .venv. Needs Python 3.11 with its launcher "py".
cd /d "%~dp0"
if not exist pyproject.toml cd ..
if exist .venv\lab.stamp goto open
echo Installing into .venv; the first time this takes a few minutes.
py -3.11 -m venv .venv || goto failed
.venv\Scripts\python -m pip install --disable-pip-version-check --editable . || goto failed
echo installed> .venv\lab.stamp
:open
set "PATH=%CD%\.venv\Scripts;%PATH%"
for /d %%d in (labs\*) do if exist "%%d\%%~nxd.ipynb" set "NOTEBOOK=labs/%%~nxd/%%~nxd.ipynb"
.venv\Scripts\python -m jupyterlab --LabApp.default_url=/lab/tree/%NOTEBOOK% %*
exit /b
:failed
echo The lab could not be installed. Is Python 3.11 there? Try: py -3.11 --version
pause
exit /b 1
